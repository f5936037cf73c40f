"""What is counted over a run: means between two log steps, and how well every task goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from envs.tasks import Outcome

NAN = float("nan")


class Averager:
    """Means of named scalars between two log steps.

    Tensors are summed where they live and read once, in `pop`, so that a GPU is not made to wait at every update.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Any], weight: float = 1.0) -> None:
        """Add one observation of every scalar in `values` (floats or 0-d tensors), counted `weight` times."""
        for name, value in values.items():
            value = value.detach() if hasattr(value, "detach") else float(value)
            self._sums[name] = self._sums[name] + value * weight if name in self._sums else value * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def pop(self) -> dict[str, float]:
        """The weighted mean of every name added since the last `pop`, which starts anew."""
        means = {name: float(total) / self._weights[name] for name, total in self._sums.items() if self._weights[name] > 0}
        self._sums, self._weights = {}, {}
        return means


@dataclass
class TaskRecord:
    """How the training episodes of one task have gone.

    Attributes:
        window: length of the deques below, which hold the newest finished episodes.
        judged: successes of the newest that were no practice: they alone count towards the threshold.
        practice: successes of the newest that were practice; practised: how many there were of these.
        steps_to_threshold: env steps of the whole run, all tasks, when the full window first reached the threshold.
        seconds_to_threshold: training seconds at that moment.
    """

    window: int
    episodes: int = 0
    successes: int = 0
    steps_to_threshold: int | None = None
    seconds_to_threshold: float | None = None
    recent_success: deque[bool] = field(default_factory=deque)
    recent_return: deque[float] = field(default_factory=deque)
    recent_length: deque[int] = field(default_factory=deque)
    judged: deque[bool] = field(default_factory=deque)
    practice: deque[bool] = field(default_factory=deque)
    practised: int = 0

    def __post_init__(self) -> None:
        self.recent_success = deque(self.recent_success, self.window)
        self.recent_return = deque(self.recent_return, self.window)
        self.recent_length = deque(self.recent_length, self.window)
        self.judged = deque(self.judged, self.window)
        self.practice = deque(self.practice, self.window)

    @property
    def success(self) -> float:
        return _mean(self.recent_success)


class SuccessTracker:
    """Training success of every task: the mean over its last `window` finished episodes, and when it first reached `threshold`.

    Training success is that of the acting, exploring policy. Only a full window can reach the threshold: nine successes out of
    ten episodes are luck, ninety out of a hundred are not. Nor do episodes that were practice count towards it.
    """

    def __init__(self, task_ids: Iterable[str], window: int = 100, threshold: float = 0.9) -> None:
        self.window, self.threshold = window, threshold
        self.tasks: dict[str, TaskRecord] = {task: TaskRecord(window) for task in task_ids}

    def record(self, outcome: Outcome, seconds: float) -> bool:
        """Count one finished episode, `seconds` of training into the run; True where it made its task reach the threshold."""
        task = self.tasks[outcome.task]
        task.episodes += 1
        task.successes += bool(outcome.success)
        task.recent_success.append(bool(outcome.success))
        task.recent_return.append(float(outcome.score))
        task.recent_length.append(int(outcome.length))
        task.practised += outcome.practice
        (task.practice if outcome.practice else task.judged).append(bool(outcome.success))
        # Counted in whole episodes: 0.9 * 100 is 90 only up to rounding.
        reached = len(task.judged) == self.window and sum(task.judged) >= self.threshold * self.window - 1e-9
        if not reached or task.steps_to_threshold is not None:
            return False
        task.steps_to_threshold, task.seconds_to_threshold = int(outcome.env_steps), float(seconds)
        return True

    def solved_lately(self, episodes: int = 30) -> bool:
        """Whether the last `episodes` of some task that were no practice reach the threshold: a sign of skill, well before
        mastery is proved."""
        recent = [list(task.judged)[-episodes:] for task in self.tasks.values()]
        return any(len(last) == episodes and sum(last) >= self.threshold * episodes - 1e-9 for last in recent)

    def share(self) -> tuple[float, int]:
        """Share of successes among all episodes so far, tasks together, and how many episodes those are."""
        episodes = sum(task.episodes for task in self.tasks.values())
        return sum(task.successes for task in self.tasks.values()) / max(episodes, 1), episodes

    def success(self) -> dict[str, float]:
        """Training success of every task that has finished an episode, full window or not."""
        return {name: task.success for name, task in self.tasks.items() if task.episodes}

    def judged(self) -> dict[str, float]:
        """The same of the episodes that were no practice."""
        return {name: _mean(task.judged) for name, task in self.tasks.items() if task.judged}

    def metrics(self) -> dict[str, float]:
        """`train/{success,return,length,episodes}/<task>` of every task that has finished an episode; where some were practice,
        `train/practice/<task>` is the success of these, and `train/judged/<task>` that of the others."""
        values: dict[str, float] = {}
        for name, task in self.tasks.items():
            if task.episodes:
                values[f"train/success/{name}"] = task.success
                values[f"train/return/{name}"] = _mean(task.recent_return)
                values[f"train/length/{name}"] = _mean(task.recent_length)
                values[f"train/episodes/{name}"] = float(task.episodes)
            if task.practised and task.judged:
                values[f"train/judged/{name}"] = _mean(task.judged)
            if task.practice:
                values[f"train/practice/{name}"] = _mean(task.practice)
        return values

    def steps_to_threshold(self) -> dict[str, int | None]:
        """`{task: env steps or None}`, as `summary.json` wants it."""
        return {name: task.steps_to_threshold for name, task in self.tasks.items()}

    def seconds_to_threshold(self) -> dict[str, float | None]:
        """`{task: seconds or None}`, as `summary.json` wants it."""
        return {name: task.seconds_to_threshold for name, task in self.tasks.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything counted, as plain JSON-able data."""
        return {
            name: {
                "episodes": task.episodes,
                "successes": task.successes,
                "steps_to_threshold": task.steps_to_threshold,
                "seconds_to_threshold": task.seconds_to_threshold,
                "recent_success": list(task.recent_success),
                "recent_return": list(task.recent_return),
                "recent_length": list(task.recent_length),
                "judged": list(task.judged),
                "practice": list(task.practice),
                "practised": task.practised,
            }
            for name, task in self.tasks.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what `state_dict` wrote. A task it does not know starts from nothing; one that is gone is left out."""
        for name in self.tasks:
            told = dict(state.get(name, {}))
            told.setdefault("judged", told.get("recent_success", []))  # there was no practice once
            self.tasks[name] = TaskRecord(self.window, **told)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else NAN
