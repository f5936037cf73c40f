"""`LatentTrajectory`: the one type everything in the hierarchy learns from, real or imagined."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class LatentTrajectory:
    """N latent trajectories of H actions and H + 1 states.

    Convention: at time t a policy sees `(z_t, h_{t-1})` and takes `action_t`; the world answers `reward_{t+1}`,
    `cont_{t+1}` and `z_{t+1}`, stored here at index t of `reward` and `cont`.

    Attributes:
        z: (N, H+1, G) int64, class index of every latent group.
        h: (N, H+1, V) float, what a policy sees beside z: index t holds the history `h_{t-1}` (zeros at an episode's start),
            followed by what texts point at in `z_t`, and by the poses on maps if they are asked for (`WorldModel.view`).
        action: (N, H, *action shape), int64 choices or float numbers.
        log_prob: (N, H) float, log-probability under the policy that chose the action.
        reward: (N, H) float, reward for taking `action_t`.
        cont: (N, H) float in [0, 1], probability that the episode did not terminate on arriving at t+1.
        weight: (N, H+1) float, probability that the state is still part of the episode (imagined), or 1 / 0 for real / padding.
        boundary: (N, H+1) bool, no step leads on from state t (its episode ended there); a return into it bootstraps from it.
        source: `imagined` or `real`.
    """

    z: Tensor
    h: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    cont: Tensor
    weight: Tensor
    boundary: Tensor
    source: str

    def rows(self, index: Tensor) -> LatentTrajectory:
        """The trajectories at `index` (M,)."""
        tensors = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "source"}
        return LatentTrajectory(**tensors, source=self.source)

    def only(self, counts: Tensor) -> LatentTrajectory:
        """The same, with weight on those states alone that `counts` (N, H) says, and on the last ones."""
        return replace(self, weight=torch.cat([self.weight[:, :-1] * counts, self.weight[:, -1:]], 1))
