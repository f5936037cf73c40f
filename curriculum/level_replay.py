"""Replay the layouts from which there is most to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig, LevelReplayConfig
from curriculum.weights import shares
from envs.tasks import Outcome, Task, TaskSpace


def priorities(scores: np.ndarray, config: LevelReplayConfig) -> np.ndarray:
    """Probabilities (M,) of levels by their scores (M,): (1 / rank) or the score itself, to the power of 1 / temperature."""
    if config.prioritization == "rank":
        weights = np.empty(len(scores))
        weights[np.argsort(-scores, kind="stable")] = 1 / np.arange(1, len(scores) + 1)
    else:
        weights = scores / max(scores.max(), 1e-12)
    return shares(weights ** (1 / config.temperature))


class LevelReplay(Curriculum):
    """A share of the episodes plays levels again, those whose values were most wrong first, and those not played for long.

    Prioritised Level Replay (Jiang et al. 2021, arXiv:2010.03934). A level is a task with a seed: training environments make
    the same layout of it every time, one of the training split. Its score is the signal `value_error` or `regret` of its last
    episode; one that has none, as its episodes are kept out of training, is not kept. The rest of the episodes plays new levels,
    of all tasks alike.

    With `robust` new levels are only judged, not learned from (Jiang et al. 2021b, arXiv:2110.02439), once there are levels
    enough to replay; their env steps count all the same.
    """

    reads = frozenset({"level_replay"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.settings = config.level_replay
        self.required_signals = frozenset({self.settings.score})
        self.episodes = 0
        self.levels: list[tuple[int, int]] = []  # (task index, seed)
        self.scores: list[float] = []
        self.played: list[int] = []  # number of the episode that last played each
        self.judging: set[tuple[int, int]] = set()  # levels under way that are not learned from
        self.judged_steps = 0  # env steps of such levels
        self._place: dict[tuple[int, int], int] = {}
        self._chances: np.ndarray | None = None

    @property
    def ready(self) -> bool:
        """Whether there are levels enough to replay."""
        return len(self.levels) >= max(1.0, self.settings.fill * self.settings.levels)

    def chances(self) -> np.ndarray:
        """(M,) probability of each level to be the one replayed."""
        if self._chances is None:
            stale = shares((self.episodes - np.array(self.played)).astype(float))
            share = self.settings.staleness
            self._chances = (1 - share) * priorities(np.array(self.scores), self.settings) + share * stale
        return self._chances

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        ready, chosen = self.ready, []
        for _ in range(n):
            if ready and rng.random() < self.settings.replay:
                task, seed = self.levels[rng.choice(len(self.levels), p=self.chances())]
                chosen.append(self.tasks.level(task, seed))
            else:
                level = int(rng.integers(len(self.tasks))), int(rng.integers(2**31))
                new = self.tasks.level(*level)
                if ready and self.settings.robust:
                    new = replace(new, learn=False)
                    self.judging.add(level)
                chosen.append(new)
        return chosen

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.episodes += 1
            self._chances = None
            level = self.index[outcome.task], outcome.seed
            if level in self.judging:
                self.judging.remove(level)
                self.judged_steps += outcome.length
            score = outcome.signals.get(self.settings.score)
            if score is not None:
                self._judge(level, score)
            elif level in self._place:
                self._forget(level)

    def _judge(self, level: tuple[int, int], score: float) -> None:
        place = self._place.get(level)
        if place is None and len(self.levels) < self.settings.levels:
            place = len(self.levels)
            self.levels.append(level)
            self.scores.append(0.0)
            self.played.append(0)
        elif place is None:
            place = int(self.chances().argmin())
            if self.scores[place] >= score:
                return
            del self._place[self.levels[place]]
        self._place[level] = place
        self.levels[place], self.scores[place], self.played[place] = level, float(score), self.episodes
        self._chances = None

    def _forget(self, level: tuple[int, int]) -> None:
        """Its place is the last one's now."""
        place = self._place.pop(level)
        last = self.levels.pop(), self.scores.pop(), self.played.pop()
        if place < len(self.levels):
            self.levels[place], self.scores[place], self.played[place] = last
            self._place[last[0]] = place
        self._chances = None

    def distribution(self) -> np.ndarray:
        new = np.full(len(self.tasks), 1 / len(self.tasks))
        if not self.ready:
            return new
        replayed = np.bincount([task for task, _ in self.levels], self.chances(), len(self.tasks))
        return self.settings.replay * replayed + (1 - self.settings.replay) * new

    def metrics(self) -> dict[str, float]:
        mean = {"score": float(np.mean(self.scores))} if self.scores else {}
        own = {"judged_steps": float(self.judged_steps)} if self.settings.robust else {}
        return super().metrics() | {"levels": float(len(self.levels))} | mean | own

    def state_dict(self) -> dict[str, Any]:
        levels = [list(level) for level in self.levels]
        return {
            "episodes": self.episodes,
            "levels": levels,
            "scores": list(self.scores),
            "played": list(self.played),
            "judging": sorted(list(level) for level in self.judging),
            "judged_steps": self.judged_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.episodes = int(state["episodes"])
        self.levels = [(int(task), int(seed)) for task, seed in state["levels"]]
        self.scores = [float(score) for score in state["scores"]]
        self.played = [int(episode) for episode in state["played"]]
        self.judging = {(int(task), int(seed)) for task, seed in state.get("judging", ())}
        self.judged_steps = int(state.get("judged_steps", 0))
        self._place = {level: place for place, level in enumerate(self.levels)}
        self._chances = None
