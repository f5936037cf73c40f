"""A pretrained encoder inside a world model: frozen, with adapters that are trained, or trained as a whole."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.errors import UserError
from world_model.pretrained.loading import digest, load_tokenizer, load_tower, picture_format, where
from world_model.pretrained.settings import PretrainedConfig

CHUNK = 64  # inputs that are read at once where no gradient is asked for


class PretrainedEncoder(nn.Module):
    """Texts or pictures -> features (N, width): the mean of what the encoder answers, over tokens or places.

    Only what is trained is a part of this module, and so of optimisers and checkpoints: nothing (`frozen`), the adapters (`lora`;
    Hu et al. 2021) or all (`full`). Of weights that are not saved a hash is: a checkpoint is not read beside other ones.
    Dropout stays off, so that acting, imagination and training see the same features.

    Raises:
        UserError: see `world_model.pretrained.loading`; `peft` is not installed; it answers no features.
    """

    place: Tensor
    weights: Tensor

    def __init__(self, key: str, settings: PretrainedConfig, reads: str) -> None:
        super().__init__()
        self.key, self.settings, self.reads = key, settings, reads
        tower = load_tower(key, settings, reads)
        self.tokenizer = load_tokenizer(key, settings) if reads == "text" else None
        self.format = picture_format(key, settings, tower) if reads == "image" else None
        self.register_buffer("place", torch.zeros(()), persistent=False)  # goes where the model goes
        if settings.mode == "full":
            self.module = tower
        else:
            self.register_buffer("weights", digest(tower))
            tower.requires_grad_(False)
        if settings.mode == "lora":
            trained = _add_adapters(tower, where(key, settings), settings.rank)
            self.adapters = nn.ParameterDict({name.replace(".", "/"): value for name, value in trained.items()})
        self._tower = (tower,)  # in a tuple, modules and parameters are not found
        self.width = self._measure()

    @property
    def tower(self) -> nn.Module:
        """The encoder itself, on this module's device."""
        (tower,) = self._tower
        if next(tower.parameters()).device != self.place.device:
            tower.to(self.place.device)
        return tower

    @property
    def trained(self) -> bool:
        return self.settings.mode != "frozen"

    def train(self, mode: bool = True) -> PretrainedEncoder:
        super().train(mode)
        self._tower[0].eval()
        return self

    def forward(self, inputs: Any) -> Tensor:
        """A list of N texts, or (N, height, width, channels) bytes, -> (N, width) float32. Frozen ones need no gradient."""
        if torch.is_grad_enabled() and self.trained:
            return self._read(inputs).float()
        # What is kept of a frozen encoder must not depend on where it was asked for first.
        autocast = torch.autocast(self.place.device.type, enabled=False) if not self.trained else nullcontext()
        with torch.no_grad(), autocast:
            return torch.cat([self._read(inputs[start : start + CHUNK]).float() for start in range(0, len(inputs), CHUNK)])

    def _read(self, inputs: Any) -> Tensor:
        if self.tokenizer is None:
            found = self.tower(pixel_values=self._pictures(inputs)).last_hidden_state
            return found.mean(1) if found.ndim == 3 else found.mean((2, 3))
        most = getattr(self.tower.config, "max_position_embeddings", None) or 512
        tokens = self.tokenizer(list(inputs), padding=True, truncation=True, max_length=min(most, 512), return_tensors="pt")
        ids, mask = tokens["input_ids"].to(self.place.device).long(), tokens["attention_mask"].to(self.place.device)
        said = mask.any(1)  # of a text without any token nothing is asked, as encoders have no answer to it
        if not bool(said.any()):
            return torch.zeros(len(ids), self.width, device=ids.device)
        found = self.tower(input_ids=ids[said], attention_mask=mask[said]).last_hidden_state  # (N, tokens, width)
        weight = mask[said].unsqueeze(-1).to(found.dtype)
        means = (found * weight).sum(1) / weight.sum(1)
        return means.new_zeros(len(ids), means.shape[-1]).masked_scatter(said.unsqueeze(-1), means)

    def _pictures(self, frames: Tensor) -> Tensor:
        """(N, height, width, channels) bytes -> (N, 3, height, width) as the encoder wants them."""
        assert self.format is not None
        x = frames.to(self.place.device).movedim(-1, 1).float() / 255
        channels = len(self.format.mean)
        if x.shape[1] != channels:  # grey is shown in all colours, of stacked frames and transparency the first ones count
            x = x[:, :1].expand(-1, channels, -1, -1) if x.shape[1] < channels else x[:, :channels]
        if self.format.size and x.shape[2:] != self.format.size:
            x = F.interpolate(x, self.format.size, mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (self.format.mean, self.format.std))
        return (x - mean) / std

    @torch.no_grad()
    def _measure(self) -> int:
        """The width of what it answers, found by trying."""
        shown = (
            ["a"]
            if self.reads == "text"
            else torch.zeros(1, *((self.format and self.format.size) or (64, 64)), 3, dtype=torch.uint8)
        )
        try:
            return int(self._read(shown).shape[-1])
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise UserError(
                f"{where(self.key, self.settings)} does not answer features of a {self.reads} ({str(error).splitlines()[0]}); "
                "give another encoder."
            ) from error

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}weights")
        if self.settings.mode != "full" and saved is not None and not torch.equal(saved.cpu(), self.weights.cpu()):
            raise UserError(
                f"{where(self.key, self.settings)} is not the encoder that this agent was trained with, its weights differ; "
                f"give that one (model.pretrained.{self.key}.id and .revision)."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _add_adapters(tower: nn.Module, setting: str, rank: int) -> dict[str, nn.Parameter]:
    """Adapters beside every linear layer of `tower`; answers their parameters by name."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"{setting} asks for mode lora, which needs peft; install it by pip install -e '.[lora]'.") from error
    layers = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and "pooler" not in name]
    if not layers:
        raise UserError(f"{setting} has no linear layers for adapters; choose mode frozen or full.")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), tower)
    return {name: value for name, value in tower.named_parameters() if value.requires_grad}
