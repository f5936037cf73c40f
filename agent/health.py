"""Is learning sound? Overfitting, dead or exploding gradients and collapsed codes, each said once, with the way out."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from world_model.latents import LatentSpec
from world_model.usage import dead_share, perplexity

log = logging.getLogger(__name__)

HALF = 8  # looks whose mean is compared with that of the HALF before them
RISE = 0.1  # by how much, as a share, the held-out loss has to rise to count
ERRORS = 2.0  # ... and by how many of its own standard errors
SILENT = 1e-8  # a gradient norm below this moves nothing
PATIENCE = 3  # looks in a row for which a gradient is silent
USUAL = 10  # looks from which a part's usual gradient norm is known
EXPLOSION = 100.0  # times its usual norm, at two looks in a row
LEARNED = 0.01  # a head whose loss is below this needs no gradient any more
FORGETTING = 0.9  # weight of the codes counted at earlier looks
COLLAPSED = 1.2  # fewer codes than this are in use


def overfits(training: Sequence[float], validation: Sequence[float]) -> bool:
    """Whether the held-out loss rises while the training loss does not, over the last 2 * HALF looks (both of equal length).

    The held-out mean of the newer half has to exceed that of the older half by more than `RISE` and by more than `ERRORS`
    standard errors of their difference, and the training mean must not have risen: when the data change, both rise.
    """
    if len(validation) < 2 * HALF:
        return False
    (old, old_error), (new, new_error) = _mean_and_error(validation[-2 * HALF : -HALF]), _mean_and_error(validation[-HALF:])
    rises = new - old > max(RISE * abs(old), ERRORS * math.hypot(old_error, new_error))
    return rises and _mean_and_error(training[-HALF:])[0] <= _mean_and_error(training[-2 * HALF : -HALF])[0]


def is_dead(norms: Sequence[float], loss: float | None = None) -> bool:
    """Whether no gradient came at the last `PATIENCE` looks, though `loss` (where the part has one of its own) is not learned."""
    if loss is not None and loss < LEARNED:
        return False
    return len(norms) >= PATIENCE and all(norm < SILENT for norm in list(norms)[-PATIENCE:])


def explodes(norms: Sequence[float]) -> bool:
    """Whether the last norm is not finite, or the last two are more than `EXPLOSION` times the median of those before."""
    norms = list(norms)
    if norms and not math.isfinite(norms[-1]):
        return True
    before = sorted(norms[:-2])
    return len(before) >= USUAL and min(norms[-2:]) > EXPLOSION * before[len(before) // 2] > 0


class Health:
    """Looks at learning every `every` updates (0: never) and warns, once for each thing that can go wrong."""

    def __init__(self, latents: LatentSpec, every: int) -> None:
        self.every = every
        self.blocks = {block.key: block for block in latents.blocks}
        self.training: deque[float] = deque(maxlen=2 * HALF)
        self.validation: deque[float] = deque(maxlen=2 * HALF)
        self.norms: dict[str, deque[float]] = {}
        self.counts: dict[str, Tensor] = {}
        self.told: set[str] = set()

    def due(self, updates: int) -> bool:
        """Whether the update after `updates` of them is one to look at."""
        return self.every > 0 and updates % self.every == 0

    def look(
        self,
        losses: Mapping[str, float],
        held_out: float | None,
        norms: Mapping[str, float],
        codes: Mapping[str, tuple[Tensor, int]],
    ) -> dict[str, float]:
        """Take in one update; answers `codes/perplexity/KEY` and `codes/dead/KEY`.

        Args:
            losses: of the training batch, `total` among them.
            held_out: the total loss of a held-out batch, where there is one.
            norms: gradient norms by part, those of a head under the name of its loss.
            codes: of every learned block, counts (groups, C) of the batch's codes and how many codes there are to use.
        """
        if held_out is not None:
            self.training.append(losses["total"])
            self.validation.append(held_out)
            if overfits(list(self.training), list(self.validation)):
                old, new = (sum(half) / HALF for half in (list(self.validation)[:HALF], list(self.validation)[HALF:]))
                self._tell(
                    "overfitting",
                    f"the world model overfits: its loss on held-out episodes rose from {old:.3g} to {new:.3g}, its training "
                    "loss did not; give more env steps per update (train.update_every), model.weight_decay or a smaller model",
                )
        for part, norm in norms.items():
            seen = self.norms.setdefault(part, deque(maxlen=2 * USUAL))
            seen.append(norm)
            if is_dead(seen, losses.get(part)):
                self._tell(
                    f"dead {part}",
                    f"no gradient reaches {part}, so it does not learn: see that no weight of model.losses is 0 for it, "
                    "or start anew with a lower model.lr or hierarchy.actor_critic.lr",
                )
            if explodes(seen):
                self._tell(
                    f"explosion {part}",
                    f"the gradients of {part} explode: their norm is {norm:.3g}, a hundred times the usual; give a lower "
                    "model.lr or model.grad_clip (for the policy, hierarchy.actor_critic.lr or hierarchy.actor_critic.grad_clip)",
                )
        return self._look_at_codes(codes)

    def _look_at_codes(self, codes: Mapping[str, tuple[Tensor, int]]) -> dict[str, float]:
        values: dict[str, float] = {}
        for key, (counts, available) in codes.items():
            counts = counts.cpu()
            total = FORGETTING * self.counts[key] + counts if key in self.counts else counts
            self.counts[key] = total
            in_use = values[f"codes/perplexity/{key}"] = perplexity(total).mean().item()
            dead = values[f"codes/dead/{key}"] = dead_share(total, available).mean().item()
            block = self.blocks[key]
            # Most of a picture may be one colour, so cells are few only if all of them look the same.
            few = in_use if block.learned else (1 - dead) * available
            if few < COLLAPSED and available >= COLLAPSED and not block.static:
                sizes = "model.learned_classes, model.vector_std" if block.kind == "vector" else "model.view_classes"
                keys = sizes if block.learned else "model.image_radius"
                self._tell(
                    f"collapse {key}",
                    f"the codes of `{key}` have collapsed: {few:.2g} of {available} are in use; unless it hardly changes, "
                    f"start anew with other {keys} or a lower model.lr",
                )
        return values

    def _tell(self, what: str, sentence: str) -> None:
        if what not in self.told:
            self.told.add(what)
            log.warning(sentence)

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as plain JSON-able data."""
        return {
            "training": list(self.training),
            "validation": list(self.validation),
            "norms": {part: list(norms) for part, norms in self.norms.items()},
            "counts": {key: counts.tolist() for key, counts in self.counts.items()},
            "told": sorted(self.told),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` wrote; what it does not hold starts anew."""
        self.training = deque(state.get("training", ()), 2 * HALF)
        self.validation = deque(state.get("validation", ()), 2 * HALF)
        self.norms = {part: deque(norms, 2 * USUAL) for part, norms in state.get("norms", {}).items()}
        self.counts = {key: torch.tensor(counts) for key, counts in state.get("counts", {}).items()}
        self.told = set(state.get("told", ()))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of n values and its standard error."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
