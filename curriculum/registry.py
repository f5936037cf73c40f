"""Schedulers by name, shipped or a user's own."""

from __future__ import annotations

from curriculum.adr import AutomaticDomainRandomization
from curriculum.alp_gmm import AlpGmm
from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.expanding_range import ExpandingRange
from curriculum.imagined_success import ImaginedSuccess
from curriculum.learnability import Learnability
from curriculum.learning_progress import LearningProgress
from curriculum.level_replay import LevelReplay
from curriculum.model_progress import ModelProgress
from curriculum.reachability import Reachability
from curriculum.sequential import Sequential
from curriculum.target_only import TargetOnly
from curriculum.uniform import Uniform
from envs.by_name import class_by_name
from envs.errors import UserError
from envs.tasks import TaskSpace

CURRICULA: dict[str, type[Curriculum]] = {
    "target_only": TargetOnly,
    "uniform": Uniform,
    "sequential": Sequential,
    "learning_progress": LearningProgress,
    "learnability": Learnability,
    "level_replay": LevelReplay,
    "model_progress": ModelProgress,
    "imagined_success": ImaginedSuccess,
    "reachability": Reachability,
    "expanding_range": ExpandingRange,
    "adr": AutomaticDomainRandomization,
    "alp_gmm": AlpGmm,
}


def make_curriculum(config: CurriculumConfig, tasks: TaskSpace) -> Curriculum:
    """The scheduler named by `config.name`: one of ours, or `package.module.Class` of a user.

    Raises:
        UserError: there is none of that name, it cannot be imported, or its settings make no sense.
    """
    check_settings(config)
    way_out = f"choose one of {', '.join(CURRICULA)}, or give package.module.Class of your own (docs/curricula.md)"
    kind = CURRICULA.get(config.name) or class_by_name(config.name, Curriculum, "curriculum.name", way_out)
    return kind(tasks, config)


def check_settings(config: CurriculumConfig) -> None:
    """Refuse numbers out of range.

    Raises:
        UserError: the first of them.
    """
    progress = config.learning_progress
    rates = {
        "learning_progress.fast": progress.fast,
        "learning_progress.slow": progress.slow,
        "reachability.rate": config.reachability.rate,
    }
    for key, rate in rates.items():
        if not 0 < rate <= 1:
            raise UserError(f"curriculum.{key}={rate} is no share of an average: give more than 0, and 1 at most")
    levels, imagined = config.level_replay, config.imagined_success
    episodes = {
        "threshold": config.threshold,
        "revisit": config.revisit,
        "explore": config.explore,
        "ranges.start": config.ranges.start,
        "ranges.step": config.ranges.step,
        "ranges.low": config.ranges.low,
        "ranges.boundary": config.ranges.boundary,
        "level_replay.replay": levels.replay,
        "level_replay.fill": levels.fill,
        "level_replay.staleness": levels.staleness,
    }
    for key, share in episodes.items():
        if not 0 <= share <= 1:
            raise UserError(f"curriculum.{key}={share} is no share: give 0 to 1")
    mixture = config.alp_gmm
    counts = {
        "model_progress.window": config.model_progress.window,
        "alp_gmm.first": mixture.first,
        "alp_gmm.every": mixture.every,
        "alp_gmm.fitted": mixture.fitted,
        "alp_gmm.memory": mixture.memory,
        "alp_gmm.components": mixture.components,
        "level_replay.levels": levels.levels,
        "ranges.window": config.ranges.window,
        "imagined_success.every": imagined.every,
        "imagined_success.starts": imagined.starts,
        "imagined_success.horizon": imagined.horizon,
    }
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"curriculum.{key}={count} is too few: give 1 or more")
    choices = {
        "score": (levels.score, ("value_error", "regret")),
        "prioritization": (levels.prioritization, ("rank", "proportional")),
    }
    for key, (chosen, known) in choices.items():
        if chosen not in known:
            raise UserError(f"curriculum.level_replay.{key}={chosen} is unknown; choose one of {', '.join(known)}")
    if config.name == "adr" and not config.ranges.start:
        raise UserError("curriculum.ranges.start=0 leaves adr no range whose end could be told from its middle: give 0.1, say")
    if not levels.temperature > 0:
        raise UserError(f"curriculum.level_replay.temperature={levels.temperature} has to be above 0: give 0.3, say")
    if not 0 < progress.emphasis < 1:
        raise UserError(f"curriculum.learning_progress.emphasis={progress.emphasis} is no success rate between 0 and 1: give one")
