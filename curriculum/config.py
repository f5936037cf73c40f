"""The `curriculum` config group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LearningProgressConfig:
    """Two averages of a task's success, and how they are compared."""

    fast: float = 0.1  # share of every new episode in the fast average of success
    slow: float = 0.02  # share of every new fast average in the slow one
    emphasis: float = 0.1  # success at which progress counts most; 0.5: alike everywhere


@dataclass
class ModelProgressConfig:
    """The world model's newest losses on a task beside those before them, and how far apart they have to be."""

    window: int = 100  # losses in either
    certainty: float = 2.0  # standard errors of chance that a difference has to exceed to count as progress


@dataclass
class LevelReplayConfig:
    """Which levels are kept and how they are chosen."""

    levels: int = 256  # kept at most
    fill: float = 0.25  # share of `levels` that there have to be before any is replayed
    replay: float = 0.5  # share of episodes that play a kept level again
    score: str = "value_error"  # value_error | regret (positive part alone)
    prioritization: str = "rank"  # rank | proportional
    temperature: float = 0.3  # the lower, the more the best levels are preferred
    staleness: float = 0.3  # weight of how long a level has not been played
    robust: bool = False  # new levels are judged, not learned from


@dataclass
class ImaginedSuccessConfig:
    """How success is imagined."""

    every: int = 25  # updates between estimates
    starts: int = 16  # stored starts a task
    horizon: int = 128  # steps imagined at most; what has not ended by then is a failure


@dataclass
class ReachabilityConfig:
    """How the reach of goals is averaged."""

    rate: float = 0.05  # share of every new update in a task's average


@dataclass
class RangesConfig:
    """Ranges of a task box that grow, in units of the whole ones."""

    start: float = 0.25  # share of every range played at first, from its easy end
    step: float = 0.1  # by which a range grows, or shrinks
    window: int = 10  # adr: episodes at the end of a range that are judged together
    low: float = 0.5  # adr: success at which that end moves inwards
    boundary: float = 0.5  # adr: share of episodes played with one number at the end of its range


@dataclass
class AlpGmmConfig:
    """When and to what the mixture is fitted, in episodes."""

    first: int = 50  # episodes drawn uniformly before the first fit
    every: int = 25  # episodes between fits
    fitted: int = 250  # newest episodes that it is fitted to
    memory: int = 2000  # newest episodes among which the nearest is looked for
    components: int = 5  # Gaussians at most


@dataclass
class CurriculumConfig:
    """Which scheduler decides the task of each episode."""

    name: str = "sequential"  # one of curriculum.CURRICULA, or package.module.Class
    threshold: float = 0.9  # sequential: success over the window at which the next task begins
    window: int = 30  # newest training episodes of a task that its success is taken over
    revisit: float = 0.2  # sequential: share of episodes played on tasks already passed
    explore: float = 0.1  # share of episodes drawn uniformly over all tasks, of schedulers that weigh tasks
    learning_progress: LearningProgressConfig = field(default_factory=LearningProgressConfig)
    model_progress: ModelProgressConfig = field(default_factory=ModelProgressConfig)
    level_replay: LevelReplayConfig = field(default_factory=LevelReplayConfig)
    imagined_success: ImaginedSuccessConfig = field(default_factory=ImaginedSuccessConfig)
    reachability: ReachabilityConfig = field(default_factory=ReachabilityConfig)
    ranges: RangesConfig = field(default_factory=RangesConfig)
    alp_gmm: AlpGmmConfig = field(default_factory=AlpGmmConfig)
    kwargs: dict[str, Any] = field(default_factory=dict)  # for a scheduler of your own
