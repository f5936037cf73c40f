"""From the codes of a latent state to one vector: every modality embedded, absent ones masked, all joined."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import torch
from torch import Tensor, nn

from world_model.latents import LatentBlock, LatentSpec, code_levels, module_name

TextRows = Mapping[str, tuple[Tensor, Tensor]]  # text -> features (R, width) of some texts, and which is that of a state (...,)


class BlockEmbedding(nn.Module):
    """One block's codes (..., groups) -> (..., groups, width)."""

    offsets: Tensor

    def __init__(self, block: LatentBlock, width: int) -> None:
        super().__init__()
        rows = block.max_classes if block.shared else sum(block.classes)
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=1.0)
        offsets = [0] * block.groups
        if not block.shared:
            for index in range(1, block.groups):
                offsets[index] = offsets[index - 1] + block.classes[index - 1]
        self.register_buffer("offsets", torch.tensor(offsets), persistent=False)
        self.classes = block.max_classes
        self.direction = nn.Parameter(torch.randn(block.groups, width)) if block.ordered else None
        if block.ordered:  # start as a straight line through the levels: what is learned of one level holds for its neighbours
            nn.init.zeros_(self.table.weight)

    def forward(self, codes: Tensor) -> Tensor:
        embedded = self.table(codes + self.offsets)
        if self.direction is None:
            return embedded
        return embedded + code_levels(codes, self.classes).unsqueeze(-1) * self.direction


class TextGuide(nn.Module):
    """Text points at the cells it speaks of: words (..., words, width), cells (..., cells, width) -> features (..., out).

    Queries come from the whole text and keys from what a cell shows alone, so that "red ball" is looked for in the same way in
    every place. The features are the similarities themselves, place by place: a softmax over the cells, as attention has it,
    starts near uniform, and learned more slowly in trials which words mean which symbols.
    """

    def __init__(self, words: int, cells: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query = nn.Linear(words * width, heads * width)
        self.key = nn.Linear(width, heads * width)
        self.places = nn.Linear(heads * cells, out)

    def similarity(self, words: Tensor, cells: Tensor) -> Tensor:
        """How like each cell is to what the text says, by every measure: (..., heads * cells)."""
        query = self._normed(self.query(words.flatten(-2)))  # (..., heads, width)
        key = self._normed(self.key(cells))  # (..., cells, heads, width)
        return (torch.einsum("...hw,...chw->...hc", query, key) / math.sqrt(self.width)).flatten(-2)

    def forward(self, words: Tensor, cells: Tensor) -> Tensor:
        return self.places(self.similarity(words, cells))

    def _normed(self, x: Tensor) -> Tensor:
        """(..., heads * width) -> (..., heads, width), each head of unit mean square."""
        return nn.functional.rms_norm(x.unflatten(-1, (self.heads, self.width)), (self.width,))


class CrossModalAttention(nn.Module):
    """Modalities look at each other: one pre-norm attention layer over the modalities of one observation, (..., M, width).

    It works at a quarter of the width, so that an imagined step stays cheap, and starts by changing nothing, so that it begins as
    the plain sum which it may improve on.
    """

    def __init__(self, modalities: int, width: int, heads: int) -> None:
        super().__init__()
        narrow = width // 4
        self.name = nn.Parameter(torch.randn(modalities, width))
        self.norm = nn.RMSNorm(width)
        self.down = nn.Linear(width, narrow)
        self.attend = nn.MultiheadAttention(narrow, heads, batch_first=True)
        self.up = nn.Linear(narrow, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.down(self.norm(x + self.name)).flatten(0, -3)  # (N, M, narrow)
        mixed, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return x + self.up(mixed).view_as(x)


class FeatureReader(nn.Module):
    """Features of texts from a pretrained encoder -> (..., out). Each is read once, however many states speak of it."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, out, bias=False)  # a text that is not known says nothing

    def forward(self, rows: Tensor, index: Tensor) -> Tensor:
        """rows (R, width), index (...,) -> (..., out)."""
        if len(rows) > index.numel():
            return self.linear(self._normed(rows[index]))
        return self.linear(self._normed(rows))[index]

    def _normed(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (self.width,))


class LatentEmbedding(nn.Module):
    """A latent state z (..., G) -> one feature vector (..., out): the sum of what its modalities say.

    In the place of a modality that is absent stands a learned vector of its own.

    Args:
        spec: what z is made of.
        symbol_width: of one symbol's embedding.
        out: width of the features.
        text_heads: every text also points at the cells of every grid, by so many measures (`TextGuide`).
        attention_heads: the modalities look at each other first (`CrossModalAttention`), with so many heads.
        features: widths of the features, by the key of a text, that a pretrained encoder has of it (`FeatureReader`).
    """

    def __init__(
        self,
        spec: LatentSpec,
        symbol_width: int,
        out: int,
        text_heads: int = 0,
        attention_heads: int = 0,
        features: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        blocks = [block for block in spec.blocks if not block.silent]
        self.keys = tuple(block.key for block in blocks)
        self.tables = nn.ModuleDict({module_name(block.key): BlockEmbedding(block, symbol_width) for block in blocks})
        self.project = nn.ModuleDict({module_name(block.key): nn.Linear(block.groups * symbol_width, out) for block in blocks})
        self.absent = nn.ParameterDict({module_name(key): torch.zeros(out) for key in spec.presence})
        self.attention = CrossModalAttention(len(blocks), out, attention_heads) if attention_heads and len(blocks) > 1 else None
        texts = [block for block in blocks if block.kind == "text"] if text_heads else []
        grids = [block for block in blocks if block.layout]
        self.pairs = [(text.key, grid.key) for text in texts for grid in grids]
        features = features or {}
        self.guides = nn.ModuleList(
            TextGuide(text.groups + (text.key in features), grid.groups, symbol_width, text_heads, out)
            for text in texts
            for grid in grids
        )
        guiding = {text for text, _ in self.pairs}
        self.read = nn.ModuleDict({module_name(key): FeatureReader(width, out) for key, width in features.items()})
        self.hint = nn.ModuleDict(
            {module_name(key): FeatureReader(width, symbol_width) for key, width in features.items() if key in guiding}
        )

    def forward(self, z: Tensor, features: TextRows | None = None, known: Mapping[str, Tensor] | None = None) -> Tensor:
        """`known` is what `constant` answered of these episodes: those modalities are not embedded again."""
        features, known = features or {}, known or {}
        there = self.spec.present(z)
        symbols = self._symbols(z, () if self.guides else known)
        parts = [known[key] if key in known else self._part(key, symbols[key], features, there) for key in self.keys]
        if self.attention is not None:
            parts = list(self.attention(torch.stack(parts, -2)).unbind(-2))
        for guide, similarity in zip(self.guides, self._pointed(symbols, there, features), strict=True):
            assert isinstance(guide, TextGuide)
            parts.append(guide.places(similarity))
        return sum(parts[1:], parts[0])

    def constant(self, z: Tensor, features: TextRows | None = None) -> dict[str, Tensor]:
        """What the modalities say by themselves that stay as they are all episode long: {key: (..., out)}."""
        changing = {block.key for block in self.spec.blocks if not block.static or block.presence}
        symbols = self._symbols(z, changing)
        return {key: self._part(key, x, features or {}, {}) for key, x in symbols.items()}

    def _part(self, key: str, symbols: Tensor, features: TextRows, there: Mapping[str, Tensor]) -> Tensor:
        """What one modality says by itself, (..., out)."""
        name = module_name(key)
        part = self.project[name](symbols.flatten(-2))
        if key in features:
            part = part + self.read[name](*features[key])
        return torch.where(there[key].unsqueeze(-1), part, self.absent[name]) if key in there else part

    @property
    def similarity_width(self) -> int:
        return sum(guide.places.in_features for guide in self.guides if isinstance(guide, TextGuide))

    def similarities(self, z: Tensor, features: TextRows | None = None) -> Tensor:
        """How like every cell of every grid is to what every text says: (..., similarity width)."""
        return torch.cat(self._pointed(self._symbols(z), self.spec.present(z), features or {}), -1)

    def _pointed(self, symbols: dict[str, Tensor], there: dict[str, Tensor], features: TextRows) -> list[Tensor]:
        """The similarities of every text and grid, (..., heads * cells) each; none where either is absent."""
        found = []
        for (text, grid), guide in zip(self.pairs, self.guides, strict=True):
            assert isinstance(guide, TextGuide)
            words = symbols[text]
            if text in features:  # one word more: what the encoder makes of them all
                hint = self.hint[module_name(text)](*features[text])
                words = torch.cat([words, hint.unsqueeze(-2)], -2)
            similarity = guide.similarity(words, symbols[grid])
            for key in (text, grid):
                if key in there:
                    similarity = similarity * there[key].unsqueeze(-1)
            found.append(similarity)
        return found

    def _symbols(self, z: Tensor, skip: Container[str] = ()) -> dict[str, Tensor]:
        """{block key: (..., groups, symbol width)}, but for those to skip."""
        codes = self.spec.split(z)
        return {key: self.tables[module_name(key)](codes[key]) for key in self.keys if key not in skip}
