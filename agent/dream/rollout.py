"""Dreams: what the model imagines beside what really happened, under the same actions, and where the two part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.agent import Agent
from agent.futures import Start, imagine_futures, observations
from agent.sequences import Episode
from envs.spaces.specs import ModalitySpec, presence_key

Array = NDArray[Any]

GREY = 0.1  # root mean square error of a patch, as a share of full brightness, from which it counts as wrong
SPREAD = 0.5  # error of a vector's element, in standard deviations over the episode, from which it counts as wrong
SHOWN = 16  # observations before the start that are kept for pictures at most
REWARD = 0.1  # error of a reward that counts as wrong, as a share of the largest one of the episode (at least 1)


@dataclass
class Dream:
    """An episode's real future from step `start` on, and N imagined ones under the same actions.

    Attributes:
        task: of the episode.
        context: {key: (C + 1, *shape)} the last observations that the model was shown; the last of them is the start.
        real: {key: (H + 1, *shape)}; index 0 is the start.
        imagined: {key: (N, H + 1, *shape)}; at index 0 the start as the model codes it.
        wrong: {key: (N, H + 1, *parts)} bool, where the imagined differs from the real: cells of a grid, patches of an image,
            elements of a vector or of categories, the whole of a text. What is static is carried along and not among them.
        reward: (H,). imagined_reward: (N, H). cont: (N, H), predicted probability that the episode goes on.
        ended: whether the real episode terminated at its last step.
        mission: texts that do not change within the episode.
    """

    task: str
    start: int
    context: dict[str, Array]
    real: dict[str, Array]
    imagined: dict[str, Array]
    wrong: dict[str, Array]
    reward: Array
    imagined_reward: Array
    cont: Array
    ended: bool
    mission: str = ""

    @property
    def horizon(self) -> int:
        return len(self.reward)

    @property
    def samples(self) -> int:
        return len(self.imagined_reward)

    @property
    def wrong_reward(self) -> Array:
        """(N, H) bool."""
        error = np.abs(self.imagined_reward - self.reward)
        return np.asarray(error > REWARD * max(1.0, float(np.abs(self.reward).max())))

    @property
    def wrong_end(self) -> Array:
        """(N, H) bool: an end that is thought more likely than not and does not come, or comes and is not."""
        ends = np.zeros(self.horizon, bool)
        ends[-1] = self.ended
        return np.asarray((self.cont < 0.5) != ends)

    def first_wrong(self) -> dict[str, list[int | None]]:
        """`{key: step}` of each future, counted from the start: where it first goes wrong, None where it never does.

        `reward` and `end` are told beside the observations, as `reward` and `end`.
        """
        steps: dict[str, Array] = {"reward": self.wrong_reward, "end": self.wrong_end}
        parts = {key: wrong[:, 1:].reshape(self.samples, self.horizon, -1) for key, wrong in self.wrong.items()}
        steps = {key: np.asarray(wrong.any(-1)) for key, wrong in parts.items()} | steps
        return {key: [int(row.argmax()) + 1 if row.any() else None for row in rows] for key, rows in steps.items()}


def dream(
    agent: Agent, episode: Episode, horizon: int, seed: int = 0, context: int = 0, samples: int = 1, start: int | None = None
) -> Dream:
    """Imagine `horizon` steps of a real episode under its own actions, `samples` times, from what came before them.

    Args:
        context: steps before that the model is shown; 0: all that attention reaches back to.
        start: the step it begins at, with less than `horizon` where the episode ends sooner; by default so that it reaches the
            episode's end, with a third of the episode at least before it: a model that was shown nothing can only guess.
    """
    if start is None:
        start = max(len(episode) - horizon, len(episode) // 3)
    horizon = min(horizon, len(episode) - start)
    model = agent.model
    futures = imagine_futures(agent, [Start(episode, start)], horizon, context, samples, seed)
    end = start + horizon
    real = {key: value[start : end + 1] for key, value in episode.obs.items()}
    imagined = observations(model, futures.z[0])
    shown = max(0, start - min(context or SHOWN, SHOWN))
    leaves = model.spec.observations
    # Texts are compared word by word: how they are set apart is not what the model is asked for.
    words = {leaf.key: model.modality(leaf.key) for leaf in leaves if leaf.kind == "text"}
    known = real | {key: text.detokenize(text.tokenize(real[key])) for key, text in words.items()}
    missions = [as_text(real[leaf.key][0]) for leaf in leaves if leaf.kind == "text" and leaf.static]
    imagined |= {leaf.key: _carried(leaf, episode, start, imagined) for leaf in leaves if leaf.static}
    return Dream(
        task=episode.task,
        start=start,
        context={key: value[shown : start + 1] for key, value in episode.obs.items()},
        real=real,
        imagined=imagined,
        wrong={
            leaf.key: differs(leaf, imagined[leaf.key], known[leaf.key], episode.obs[leaf.key], model.config.image_patch)
            for leaf in leaves
            if not leaf.static
        },
        reward=episode.reward[start:end],
        imagined_reward=futures.reward[0].cpu().numpy(),
        cont=futures.cont[0].cpu().numpy(),
        ended=episode.terminated and end == len(episode),
        mission=", ".join(missions),
    )


def differs(leaf: ModalitySpec, imagined: Array, real: Array, episode: Array, patch: int) -> Array:
    """Where futures (N, H + 1, *shape) differ from reality (H + 1, *shape), as in `Dream.wrong`.

    Args:
        episode: (T + 1, *shape), all of it, whose spread tells what is a large error of a vector.
        patch: pixels a side of an image's patches.
    """
    if leaf.kind == "image":
        return np.asarray(patch_error(imagined, real, patch) > GREY * 255)
    if leaf.kind == "vector" or np.dtype(leaf.dtype).kind == "f":  # or one of somebody's own kinds
        spread = episode.astype(np.float64).std(0)
        return np.asarray(np.abs(imagined.astype(np.float64) - real) > SPREAD * np.maximum(spread, 1e-6))
    different = np.asarray(imagined != real)
    if leaf.kind == "grid":
        return np.asarray(different.any(-1))
    return np.asarray(different.any(-1, keepdims=True)) if leaf.kind == "text" else different


def patch_error(imagined: Array, real: Array, patch: int) -> Array:
    """Root mean square error, in grey levels, of every patch of images (..., height, width, channels) -> (..., rows, columns)."""
    square = np.square(imagined.astype(np.float32) - real).mean(-1)
    height, width = square.shape[-2:]
    sums = np.add.reduceat(np.add.reduceat(square, np.arange(0, height, patch), -2), np.arange(0, width, patch), -1)
    sizes = [np.minimum(patch, side - np.arange(0, side, patch)) for side in (height, width)]
    return np.asarray(np.sqrt(sums / np.outer(*sizes)))


def as_text(data: Array) -> str:
    """A text observation, bytes filled up with zeros, as a string."""
    return bytes(data.astype(np.uint8)).rstrip(b"\0").decode("utf-8", "replace")


def _carried(leaf: ModalitySpec, episode: Episode, start: int, imagined: Mapping[str, Array]) -> Array:
    """What lasts for an episode (N, H + 1, *shape), from step `start` on: as it really was, where it is imagined to be there."""
    stored, dreamt = episode.obs[leaf.key], imagined[leaf.key]
    if not leaf.optional:
        return np.broadcast_to(stored[start], dreamt.shape)
    key = presence_key(leaf.key)
    shown = episode.obs[key][: start + 1, 0]
    return np.stack([come_back(stored, *pair) for pair in zip(dreamt, [shown] * len(dreamt), imagined[key][..., 0], strict=True)])


def come_back(stored: Array, imagined: Array, shown: Array, there: Array) -> Array:
    """What lasts for an episode but may be absent (H + 1, *shape): as it was stored when it was last shown, where it is there.

    Args:
        stored: (T + 1, *shape), of the whole episode. imagined: (H + 1, *shape), which stands where it was never shown.
        shown: (t + 1,), whether it was, up to the start. there: (H + 1,), whether it is imagined to be.
    """
    before = np.flatnonzero(shown)
    if not len(before):
        return imagined
    known = np.broadcast_to(stored[before[-1]], imagined.shape)
    return np.where(there.astype(bool).reshape(-1, *[1] * (imagined.ndim - 1)), known, np.zeros_like(known))
