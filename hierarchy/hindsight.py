"""Learning from what came about as if it had been asked for: goals, and how to reach them, told by experience.

As in Hierarchical Actor-Critic (Levy et al. 2019) a goal that was not reached is replaced by the state that was: whatever the
worker did, that one can be reached. Which to ask for is learned by advantage-weighted regression (Peng et al. 2019), how to reach
it by goal-conditioned imitation (Ghosh et al. 2021). A manager and a worker who only imitated would, together, do what was done.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hierarchy.trajectory import LatentTrajectory

MOST = 20.0  # bound of the exponential weights, as in advantage-weighted regression
OVER = 0.5  # an imagined step that goes on with less than this chance ends its episode


@dataclass
class Experience:
    """N states, and what came some steps later, or at the end of the episode, if that was before.

    Attributes:
        z, h: (N, G), (N, V). action: (N, *action shape), the first one taken. later_z, later_h: of the state arrived at.
        steps: (N,) int64, after how many. chosen_h: (N, V), of the state at which that would have been asked for.
        gain: (N,) what the way there brought: discounted rewards and value there, less value here.
        weight: (N,), 0 where it is not known where the state led.
    """

    z: Tensor
    h: Tensor
    action: Tensor
    later_z: Tensor
    later_h: Tensor
    steps: Tensor
    chosen_h: Tensor
    gain: Tensor
    weight: Tensor

    @classmethod
    def join(cls, *parts: Experience) -> Experience:
        """All of them together."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def draw(self, share: float) -> Experience:
        """So much of it, drawn at random."""
        rows = torch.randperm(len(self.gain), device=self.gain.device)[: round(share * len(self.gain))]
        return Experience(*(getattr(self, field.name)[rows] for field in fields(self)))


def arrivals(ends: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Where states lead in so many steps, or before if their episode ends there.

    Args:
        ends: (N, T + 1) bool, the state is the last one of its episode.
        steps: (N, T), for each state.

    Returns:
        index (N, T) of the state arrived at, and whether it is known (N, T): a path that is cut off before is not.
    """
    last = ends.shape[1] - 1
    at = torch.arange(last + 1, device=ends.device).expand(ends.shape)
    end = torch.where(ends, at, 2 * last + 1).flip(1).cummin(1).values.flip(1)  # the first end from here on
    index = torch.minimum(at[:, :-1] + steps, end[:, :-1])
    return index.clamp(max=last), (index <= last) & ~ends[:, :-1]


def earlier(x: Tensor, boundary: Tensor, steps: Tensor) -> Tensor:
    """What x (B, T, ...) was so many steps (B, T) before, or when its episode began; `boundary` (B, T) holds the ends."""
    at = torch.arange(x.shape[1], device=x.device).expand(boundary.shape)
    begun = torch.nn.functional.pad(at[:, 1:] * boundary[:, :-1], (1, 0)).cummax(1).values
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), torch.maximum(at - steps, begun)]


def experience(path: LatentTrajectory, value: Tensor, steps: Tensor, gamma: float, last: int = 0, period: int = 0) -> Experience:
    """Of all states of a path but those within its `last` steps; one from which it is not known where it led has weight 0.

    Imagined paths should leave out as many as steps are looked ahead: of later states it would be known only where their
    episodes ended in time.

    Args:
        value: (N, T + 1). steps: (N, T) or a number for all.
        period: what was arrived at would have been asked for so many steps before that; 0: in the state itself.
    """
    steps = steps.expand(path.reward.shape)
    ends = path.boundary.clone()
    ends[:, 1:] |= path.cont < OVER
    index, known = arrivals(ends, steps)
    count = path.reward.shape[1]
    discount = gamma ** torch.arange(count + 1, device=index.device)
    summed = torch.nn.functional.pad((discount[:-1] * path.reward).cumsum(1), (1, 0))  # (N, T + 1)
    there = path.cont.gather(1, index.clamp(min=1) - 1) * discount[index] * value.gather(1, index)
    gain = (summed.gather(1, index) - summed[:, :-1] + there) / discount[:-1] - value[:, :-1]
    taken = index - torch.arange(count, device=index.device)
    kept = slice(0, count - last + bool(last))
    rows, where = torch.arange(len(index), device=index.device).unsqueeze(1), index[:, kept]
    found = (
        path.z[:, kept],
        path.h[:, kept],
        path.action[:, kept],
        path.z[rows, where],
        path.h[rows, where],
        taken[:, kept],
        earlier(path.h[:, :-1], path.boundary[:, :-1], (period - taken).clamp(min=0))[:, kept],
        gain[:, kept],
        (path.weight[:, :-1] * known)[:, kept],
    )
    return Experience(*(x.flatten(0, 1) for x in found))


def merit(gain: Tensor, weight: Tensor, temperature: float, floor: float) -> Tensor:
    """Weights (N,), times what grows exponentially with gains in units of their deviation (`floor` at least), up to a bound."""
    total = weight.sum().clamp(min=1e-6)
    mean = (weight * gain).sum() / total
    deviation = ((weight * (gain - mean).square()).sum() / total).sqrt()
    return weight * (gain / deviation.clamp(min=floor) / temperature).exp().clamp(max=MOST)
