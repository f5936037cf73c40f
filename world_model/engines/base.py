"""One interface to train a world model on one process or many."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from world_model.batch import ModelOutput, Sequences
from world_model.model import WorldModel
from world_model.pretrained.encoder import PretrainedEncoder

# The data change as the agent learns: gradients of some hundred updates ago should no longer scale a step (PyTorch: 0.999).
BETAS = (0.9, 0.99)
# A symbol seldom seen has almost no second moment: without this floor its first gradient throws it far (PyTorch: 1e-8).
EPS = 1e-6


def parameter_groups(model: WorldModel) -> list[dict[str, Any]]:
    """All that is trained: the model's own parameters, then those of each pretrained encoder, at its own learning rate."""
    encoders = [module for module in model.modules() if isinstance(module, PretrainedEncoder) and module.trained]
    apart = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    own = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    return [{"params": own}] + [{"params": list(encoder.parameters()), "lr": encoder.settings.lr} for encoder in encoders]


def make_optimizer(model: WorldModel) -> torch.optim.AdamW:
    """AdamW as every engine uses it, so that one resumes what another saved."""
    config = model.config
    return torch.optim.AdamW(
        parameter_groups(model), lr=config.lr, weight_decay=config.weight_decay, betas=BETAS, eps=EPS, fused=True
    )


@torch.no_grad()
def evaluate(model: WorldModel, batch: Sequences) -> ModelOutput:
    """A pass in evaluation mode, without gradients; no random number of training is drawn."""
    was = model.training
    model.eval()
    try:
        output: ModelOutput = model(batch)
    finally:
        model.train(was)
    return output


class Engine(Protocol):
    """Owns the optimiser and, where it is sharded, the placement of the world model's parameters.

    Every rank makes the same calls in the same order.

    Attributes:
        is_whole: whether `inference_copy` is all there on every process, so that one may use it while the others do not.
    """

    is_whole: bool

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        """One forward, backward and optimiser step; answers the pass's output and what to log: `grad_norm`, and with `norms` that
        of every part before clipping, `grad_norm/PART`."""
        ...

    def validate(self, batch: Sequences) -> ModelOutput:
        """A pass that learns nothing, over this process's own batch."""
        ...

    def inference_copy(self) -> WorldModel:
        """What acting, evaluation and imagination call; its weights are those of the last step."""
        ...

    def shapes(self) -> dict[str, torch.Size]:
        """Of all weights of the model, by name, without gathering them."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """All weights of the model, gathered; of several processes rank 0 at least is answered with them."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None: ...

    def optimizer_state(self) -> dict[str, Any]:
        """As `torch.optim.AdamW.state_dict` of the whole model, however it is sharded: any engine resumes what another saved.
        Of several processes rank 0 at least is answered with it."""
        ...

    def load_optimizer_state(self, state: dict[str, Any]) -> None: ...
