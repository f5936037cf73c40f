"""Open-loop accuracy: how well the model predicts k steps ahead under the actions really taken, beside two simple guesses.

`model` goes on with the likeliest codes at every step, `drawn` with codes that are drawn, as in imagination. Of the guesses,
`nothing` says that all stays as it was at the start, and `frequent` says, of every element, the outcome that is most frequent k
steps after the starts measured here (of numbers and pixels the mean one): the best constant guess, found in hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.dream.rollout import GREY, patch_error
from agent.futures import Start, imagine_futures
from agent.sequences import Episode
from envs.spaces.specs import ModalitySpec

Array = NDArray[Any]
Groups = Mapping[str, Array]

BATCH = 64  # starts imagined at once
BINS = 10  # of a reliability figure
MODEL, DRAWN = "model", "drawn"


@dataclass
class Outlook:
    """What is imagined of S starts over H steps, by who imagines it: `model` and `drawn`.

    Attributes:
        z: {who: (S, H + 1, G)} codes. reward, cont: {who: (S, H)}.
        exists: (S, H + 1) bool, the episode really has that step.
    """

    starts: Sequence[Start]
    z: Groups
    reward: Groups
    cont: Groups
    exists: Array = field(init=False)

    def __post_init__(self) -> None:
        left = np.array([len(start.episode) - start.step for start in self.starts])
        self.exists = np.arange(self.z[MODEL].shape[1])[None] <= left[:, None]

    def real(self, key: str, step: int) -> Array:
        """Observations (S, *shape) `step` steps after each start; the last one where the episode ended before."""
        return np.stack([s.episode.obs[key][min(s.step + step, len(s.episode))] for s in self.starts])


def every_start(episodes: Sequence[Episode], context: int, stride: int = 1) -> list[Start]:
    """Every `stride`-th step with `context` steps before it and one after it."""
    return [Start(episode, step) for episode in episodes for step in range(context, len(episode), stride)]


def look_ahead(agent: Agent, starts: Sequence[Start], horizon: int, context: int, seed: int = 0) -> Outlook:
    """Imagine each start's future under the actions really taken."""
    found: dict[str, dict[str, Array]] = {"z": {}, "reward": {}, "cont": {}}
    for who in (MODEL, DRAWN):
        parts = [
            imagine_futures(agent, starts[i : i + BATCH], horizon, context, 1, seed + i, likeliest=who == MODEL)
            for i in range(0, len(starts), BATCH)
        ]
        for name, values in found.items():
            values[who] = np.concatenate([getattr(part, name)[:, 0].cpu().numpy() for part in parts])
    return Outlook(starts, **found)


def measure(
    agent: Agent, outlook: Outlook, steps: Sequence[int], groups: Mapping[str, Mapping[int, Groups]] | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """`{modality: {step: {figure: number, or {who guesses: number}}}}`, with `reward` and `continuation` beside the modalities.

    Args:
        groups: {key: {step: {name: (S, *cells) bool}}}: parts of a grid whose changed cells are told apart.
    """
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for leaf in agent.model.spec.observations:
        if not leaf.static:
            known = (groups or {}).get(leaf.key, {})
            figures[leaf.key] = {str(k): _measure_leaf(agent, outlook, leaf, k, known.get(k, {})) for k in steps}
    figures["reward"] = {str(k): _measure_reward(outlook, k) for k in steps}
    figures["continuation"] = {str(k): _measure_continuation(outlook, k) for k in steps}
    return figures


def _measure_leaf(agent: Agent, outlook: Outlook, leaf: ModalitySpec, step: int, groups: Groups) -> dict[str, Any]:
    rows = outlook.exists[:, step]
    if not rows.any():
        return {"starts": 0}
    modality = agent.model.modality(leaf.key)
    codes = agent.model.latents.slices[leaf.key]
    before, after = outlook.real(leaf.key, 0)[rows], outlook.real(leaf.key, step)[rows]
    imagined = {who: z[rows, step][:, codes] for who, z in outlook.z.items()}
    count = {"starts": int(rows.sum())}
    if leaf.kind == "text":  # word by word
        return count | symbol_figures(imagined, modality.tokenize(before).numpy(), modality.tokenize(after).numpy())
    guess = {who: modality.detokenize(torch.from_numpy(z).to(agent.device)) for who, z in imagined.items()}
    if leaf.kind == "vector" or np.dtype(leaf.dtype).kind == "f":
        spread = np.concatenate([e.obs[leaf.key] for e in _episodes(outlook)]).astype(np.float64).std(0)
        return count | number_figures(guess, before, after, spread)
    if leaf.kind == "image":
        return count | image_figures(guess, before, after, agent.model.config.image_patch)
    chosen = {name: mask[rows] for name, mask in groups.items()}
    return count | symbol_figures(guess, before, after, chosen)


def symbol_figures(guess: Groups, before: Array, after: Array, groups: Groups | None = None) -> dict[str, Any]:
    """Accuracy of symbols, over all and over those that changed since the start.

    Args:
        guess: {who: as the next}. before, after: (S, elements), or (S, *cells, channels) of grids, where a cell is right if all
            its channels are.
        groups: {name: (S, *cells) bool}: subsets of which the accuracy of changed symbols is told too.
    """
    cells = after.ndim > 2

    def same(one: Array, other: Array) -> Array:
        return np.asarray((one == other).all(-1) if cells else one == other)

    changed = ~same(before, after)
    guesses = {**guess, "nothing": before, "frequent": np.broadcast_to(most_frequent(after, cells), after.shape)}
    right = {who: same(what, after) for who, what in guesses.items()}
    figures: dict[str, Any] = {
        "accuracy": {who: _share(hit) for who, hit in right.items()},
        "changed_accuracy": {who: _share(hit[changed]) for who, hit in right.items()},
        "changed": int(changed.sum()),
    }
    for name, mask in (groups or {}).items():
        part = changed & mask
        figures[f"changed_{name}"] = int(part.sum())
        figures[f"changed_accuracy_{name}"] = {who: _share(hit[part]) for who, hit in right.items()}
    return figures


def most_frequent(values: Array, cells: bool = False) -> Array:
    """(S, *shape) -> (*shape), the most frequent value of every element; of grids, the most frequent cell of every place."""
    rows = values.reshape(len(values), -1, values.shape[-1] if cells else 1)  # (S, places, channels)
    found = []
    for place in range(rows.shape[1]):
        kinds, count = np.unique(rows[:, place], axis=0, return_counts=True)
        found.append(kinds[count.argmax()])
    return np.stack(found).reshape(values.shape[1:])


def number_figures(guess: Groups, before: Array, after: Array, spread: Array) -> dict[str, Any]:
    """Root mean square error of vectors (S, size), every element divided by its standard deviation `spread` (size,)."""
    scale = np.where(spread > 1e-8, spread, np.inf)
    mean = after.astype(np.float64).mean(0)
    guesses = {**guess, "nothing": before, "frequent": np.broadcast_to(mean, after.shape)}
    used = np.isfinite(scale)
    errors = {who: (what.astype(np.float64) - after)[:, used] / scale[used] for who, what in guesses.items()}
    return {"error": {who: float(np.sqrt(np.square(error).mean())) for who, error in errors.items()}}


def image_figures(guess: Groups, before: Array, after: Array, patch: int) -> dict[str, Any]:
    """Root mean square error in grey levels, and the share of changed patches that are right to a tenth of full brightness."""
    mean = np.broadcast_to(after.astype(np.float32).mean(0), after.shape)
    guesses = {**guess, "nothing": before, "frequent": mean}
    changed = patch_error(before, after, patch) > GREY * 255
    errors = {who: patch_error(what, after, patch) for who, what in guesses.items()}
    whole = {who: np.square(what.astype(np.float32) - after).mean() for who, what in guesses.items()}
    return {
        "rms": {who: float(np.sqrt(error)) for who, error in whole.items()},
        "patch_accuracy": {who: _share(error <= GREY * 255) for who, error in errors.items()},
        "changed_accuracy": {who: _share(error[changed] <= GREY * 255) for who, error in errors.items()},
        "changed": int(changed.sum()),
    }


def _measure_reward(outlook: Outlook, step: int) -> dict[str, Any]:
    rows = outlook.exists[:, step]
    if not rows.any():
        return {"starts": 0}
    pairs = [(s, s.step + step - 1) for s, there in zip(outlook.starts, rows, strict=True) if there]
    after = np.array([s.episode.reward[at] for s, at in pairs], np.float64)
    before = np.array([s.episode.reward[s.step - 1] if s.step else 0.0 for s, _ in pairs], np.float64)
    spread = float(np.concatenate([e.reward for e in _episodes(outlook)]).std())
    guess = {who: reward[rows, step - 1] for who, reward in outlook.reward.items()}
    return {"starts": int(rows.sum())} | reward_figures(guess, before, after, spread)


def reward_figures(guess: Groups, before: Array, after: Array, spread: float) -> dict[str, Any]:
    """Error of rewards (S,) in standard deviations, and its calibration: what came, on average, where so much was expected.

    `calibration_error` is the mean distance between the two over ten bins of equally many expectations, in standard deviations.
    """
    guesses = {**guess, "nothing": before, "frequent": np.full(len(after), after.mean())}
    scale = spread or 1.0
    expected = guess[MODEL]
    order = np.array_split(np.argsort(expected, kind="stable"), min(BINS, len(after)))
    gap = sum(len(part) * abs(float(expected[part].mean() - after[part].mean())) for part in order) / len(after)
    errors = {who: float(np.sqrt(np.square(what - after).mean())) / scale for who, what in guesses.items()}
    return {"error": errors, "calibration_error": gap / scale}


def _measure_continuation(outlook: Outlook, step: int) -> dict[str, Any]:
    rows = outlook.exists[:, step]
    if not rows.any():
        return {"starts": 0}
    ends = np.array([s.episode.terminated and s.step + step == len(s.episode) for s in outlook.starts])[rows]
    guess = {who: 1 - cont[rows, step - 1] for who, cont in outlook.cont.items()}
    return {"starts": int(rows.sum())} | end_figures(guess, ends)


def end_figures(guess: Groups, ends: Array) -> dict[str, Any]:
    """Predicted probabilities (S,) that an episode ends at a step, against whether it did.

    `calibration_error` is the mean distance between predicted and real shares over ten bins of probability (Naeini et al. 2015);
    `nothing` guesses that it goes on, `frequent` the share of episodes that end.
    """
    ends = ends.astype(bool)
    guesses = {**guess, "nothing": np.zeros(len(ends)), "frequent": np.full(len(ends), ends.mean())}
    chance = guess[MODEL]
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    gap = sum(abs(float((chance - ends)[bins == b].sum())) for b in range(BINS)) / len(ends)
    said = chance >= 0.5
    return {
        "brier": {who: float(np.square(what - ends).mean()) for who, what in guesses.items()},
        "calibration_error": gap,
        "ends": int(ends.sum()),
        "recall": _share(said[ends]),
        "precision": _share(ends[said]),
    }


def _episodes(outlook: Outlook) -> list[Episode]:
    return list({id(start.episode): start.episode for start in outlook.starts}.values())


def _share(hits: Array) -> float | None:
    """The share that is True; None of nothing."""
    return float(hits.mean()) if hits.size else None
