"""Plain PyTorch on one device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from world_model.batch import ModelOutput, Sequences
from world_model.engines.base import evaluate, make_optimizer
from world_model.gradients import gradient_norms
from world_model.model import WorldModel


class LocalEngine:
    """AdamW with gradient clipping."""

    is_whole = True

    def __init__(self, model: WorldModel, device: torch.device) -> None:
        self.model = model.to(device)
        self.grad_clip = model.config.grad_clip
        self.optimizer = make_optimizer(self.model)

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        output: ModelOutput = self.model(batch)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        of_parts = gradient_norms({k: [p.grad for p in own] for k, own in self.model.parts().items()}) if norms else {}
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        return output, {"grad_norm": norm.item(), **{f"grad_norm/{part}": value.item() for part, value in of_parts.items()}}

    def validate(self, batch: Sequences) -> ModelOutput:
        return evaluate(self.model, batch)

    def inference_copy(self) -> WorldModel:
        return self.model

    def shapes(self) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in self.model.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def optimizer_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
