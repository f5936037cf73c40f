"""From the codes of a latent state to one vector: every modality embedded, absent ones masked, all joined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.latents import LatentBlock, LatentSpec, code_levels, module_name

TextRows = Mapping[str, tuple[Tensor, Tensor]]  # text -> features (R, width) of some texts, and which is that of a state (...,)

MANY = 64  # numbers embedded for each code of a table, from which on it pays to work out first what each says in every place
FEW = 8  # modalities, up to which each pair of them is looked at by itself


@dataclass
class Lasting:
    """What of the embedding of states stays as it is all through a rollout, see `LatentEmbedding.lasting`.

    Attributes:
        parts: {key: (..., out)}, what the modalities say that are constant over an episode.
        rows: {key: (groups * classes, out)}, what every code says in every place (`BlockEmbedding.by_place`).
    """

    parts: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)


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
        self.groups, self.classes, self.shared = block.groups, block.max_classes, block.shared
        self.direction = nn.Parameter(torch.randn(block.groups, width)) if block.ordered else None
        if block.ordered:  # start as a straight line through the levels: what is learned of one level holds for its neighbours
            nn.init.zeros_(self.table.weight)

    def forward(self, codes: Tensor) -> Tensor:
        embedded = self.table(codes + self.offsets)
        if self.direction is None:
            return embedded
        return embedded + code_levels(codes, self.classes).unsqueeze(-1) * self.direction

    def looks_up(self, z: Tensor) -> bool:
        """Whether `by_place` is of use for states like z: where many places share a small table, on a CPU in full precision.

        To add up rows costs less than the matrix product there. Not of weights that are partitioned, which are gathered for the
        time of their own layer.
        """
        usual = self.shared and z.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return usual and not any(hasattr(weight, "ds_id") for weight in self.table.parameters())

    def many(self, codes: Tensor) -> bool:
        """Whether `by_place` is worth working out for these codes (..., groups) alone."""
        each = self.groups * self.classes * (2 if torch.is_grad_enabled() else 1)
        return codes.numel() * self.table.embedding_dim >= MANY * each

    def by_place(self, project: nn.Linear) -> Tensor:
        """What each code says in each place of a layer over all places: (groups * classes, out)."""
        weight = project.weight.unflatten(-1, (self.groups, -1)).permute(1, 2, 0)  # (groups, width, out)
        return torch.bmm(self.table.weight.expand(self.groups, -1, -1), weight).flatten(0, 1)

    def look_up(self, codes: Tensor, rows: Tensor) -> Tensor:
        """Codes (..., groups) -> (..., out), the sum of what they say in their places."""
        places = torch.arange(0, self.groups * self.classes, self.classes, device=codes.device)
        found = F.embedding_bag((codes + places).reshape(-1, self.groups), rows, mode="sum")
        return found.view(*codes.shape[:-1], found.shape[-1])


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
    """Modalities look at each other: one pre-norm attention layer over the modalities of one observation, and their sum.

    It works at a quarter of the width, and starts by changing nothing, so that it begins as the plain sum it may improve on. What
    follows the attention is linear: it is done once for the sum, not for each modality, so that an imagined step stays cheap.
    """

    def __init__(self, modalities: int, width: int, heads: int) -> None:
        super().__init__()
        narrow = width // 4
        self.heads, self.many = heads, modalities > FEW
        self.name = nn.Parameter(torch.randn(modalities, width))
        self.norm = nn.RMSNorm(width)
        self.down = nn.Linear(width, narrow)
        self.attend = nn.MultiheadAttention(narrow, heads, batch_first=True)
        self.up = nn.Linear(narrow, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., M, width) -> (..., width)."""
        tokens = self.down(self.norm(x + self.name))
        mixed = self._by_products(tokens) if self.many else self._by_pairs(tokens)
        return x.sum(-2) + x.shape[-2] * self.up(mixed)

    def _by_products(self, tokens: Tensor) -> Tensor:
        """(..., M, narrow) -> (..., narrow), the mean of what the modalities make of each other."""
        rows = tokens.flatten(0, -3)
        return self.attend(rows, rows, rows, need_weights=False)[0].mean(-2).view(*tokens.shape[:-2], -1)

    def _by_pairs(self, tokens: Tensor) -> Tensor:
        """The same, faster than matrix products of a few rows; every pair of modalities takes memory of its own."""
        found = F.linear(tokens, self.attend.in_proj_weight, self.attend.in_proj_bias)
        query, key, value = found.unflatten(-1, (3, self.heads, -1)).unbind(-3)  # (..., M, heads, narrow / heads)
        likeness = (query.unsqueeze(-3) * key.unsqueeze(-4)).sum(-1) / math.sqrt(query.shape[-1])  # (..., M looks, M seen, heads)
        weight = likeness.softmax(-2).mean(-3).unsqueeze(-1)  # (..., M, heads, 1)
        mixed: Tensor = self.attend.out_proj((weight * value).sum(-3).flatten(-2))
        return mixed


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
        self.static = {block.key for block in blocks if block.static and not block.presence}  # constant over an episode
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

    def forward(self, z: Tensor, features: TextRows | None = None, lasting: Lasting | None = None) -> Tensor:
        """`lasting` is what `lasting` answered of these episodes: it is not worked out again."""
        features, lasting = features or {}, lasting or Lasting()
        there = self.spec.present(z)
        codes = self.spec.split(z)
        parts = [
            lasting.parts[key] if key in lasting.parts else self._part(key, codes[key], features, there, lasting.rows.get(key))
            for key in self.keys
        ]
        if self.attention is not None:
            parts = [self.attention(torch.stack(parts, -2))]
        if self.guides:
            for guide, similarity in zip(self.guides, self._pointed(self._symbols(z), there, features), strict=True):
                assert isinstance(guide, TextGuide)
                parts.append(guide.places(similarity))
        return sum(parts[1:], parts[0])

    def lasting(self, z: Tensor, features: TextRows | None = None) -> Lasting:
        """What stays as it is while episodes go on from z (..., G) and no weight changes."""
        codes = self.spec.split(z)
        parts = {key: self._part(key, codes[key], features or {}, {}) for key in self.keys if key in self.static}
        changing = {key: self._table(key) for key in self.keys if key not in self.static}
        return Lasting(parts, {key: x.by_place(self._project(key)) for key, x in changing.items() if x.looks_up(z)})

    def unlasting(self, z: Tensor) -> Iterator[nn.Module]:
        """The parts that are asked at every step of a rollout of states like z: not what `lasting` answers for."""
        asked = [key for key in self.keys if key not in self.static and not self._table(key).looks_up(z)]
        yield from (self._project(key) for key in asked)
        yield from (part for name, part in self.named_children() if name not in ("tables", "project"))

    def _part(
        self, key: str, codes: Tensor, features: TextRows, there: Mapping[str, Tensor], rows: Tensor | None = None
    ) -> Tensor:
        """What one modality says by itself, (..., out)."""
        name, table, project = module_name(key), self._table(key), self._project(key)
        if rows is None and table.looks_up(codes) and table.many(codes):
            rows = table.by_place(project)
        part = project(table(codes).flatten(-2)) if rows is None else table.look_up(codes, rows) + project.bias
        if key in features:
            part = part + self.read[name](*features[key])
        return torch.where(there[key].unsqueeze(-1), part, self.absent[name]) if key in there else part

    def _table(self, key: str) -> BlockEmbedding:
        table = self.tables[module_name(key)]
        assert isinstance(table, BlockEmbedding)
        return table

    def _project(self, key: str) -> nn.Linear:
        project = self.project[module_name(key)]
        assert isinstance(project, nn.Linear)
        return project

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

    def _symbols(self, z: Tensor) -> dict[str, Tensor]:
        """{block key: (..., groups, symbol width)} of the texts and grids that are paired."""
        codes = self.spec.split(z)
        return {key: self._table(key)(codes[key]) for key in {key for pair in self.pairs for key in pair}}
