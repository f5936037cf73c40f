"""Settings of the `hierarchy` group that do not fit together, found before anything is done."""

from __future__ import annotations

from envs.errors import UserError
from hierarchy.config import HierarchyConfig
from hierarchy.goal_rewards import GOAL_REWARDS


def check_director(config: HierarchyConfig) -> None:
    """Refuse at the start what a manager and a worker could not learn with.

    Raises:
        UserError: a number out of range, an unknown name, or two settings that exclude each other.
    """
    goals, manager, worker = config.goals, config.manager, config.worker
    counts = {"period": config.period, "goals.groups": goals.groups, "goals.hidden": goals.hidden}
    counts |= {"goals.symbol_width": goals.symbol_width, "goals.cell_width": goals.cell_width}
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"hierarchy.{key}={count} is too few: give 1 or more")
    if goals.classes < 2:
        raise UserError(f"hierarchy.goals.classes={goals.classes} leaves nothing to choose from: give 2 or more")
    if config.horizon % config.period:
        raise UserError(
            f"hierarchy.horizon={config.horizon} has to be a multiple of hierarchy.period={config.period}: "
            f"give {config.period * max(1, round(config.horizon / config.period))}, say"
        )
    if config.real:
        raise UserError(f"hierarchy.real={config.real} is not for hierarchy=director, as replay knows no goals: give 0")
    for key, name, known in (
        ("worker.reward", worker.reward, tuple(GOAL_REWARDS)),
        ("manager.reward", manager.reward, ("sum", "mean")),
    ):
        if name not in known:
            raise UserError(f"hierarchy.{key}={name} is unknown; choose one of {', '.join(known)}")
    shares = {"goals.kl_target": goals.kl_target, "goals.decay": goals.decay, "manager.entropy_target": manager.entropy_target}
    shares |= {"worker.free": worker.free, "manager.likeliest": manager.likeliest}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"hierarchy.{key}={share} is a share: give 0 or more, and less than 1")
    if worker.free and config.starts < 2:
        raise UserError(
            f"hierarchy.worker.free={worker.free} takes hierarchy.starts=2 or more, some with goals and some without, not "
            f"{config.starts}; or give hierarchy.worker.free=0"
        )
    if worker.free and config.plan_training:
        raise UserError(
            "hierarchy.plan_training=true leaves hierarchy.worker.free=0 only: else planners choose which episodes have goals"
        )
    if not 0 <= worker.hindsight <= 1:
        raise UserError(f"hierarchy.worker.hindsight={worker.hindsight} is a share: give 0 to 1")
    for key, weight in {"manager.hindsight": manager.hindsight, "worker.imitation": worker.imitation}.items():
        if weight and manager.reward != "sum":
            raise UserError(f"hierarchy.{key} goes by what states are worth: give hierarchy.manager.reward=sum, or 0")
    if not manager.temperature > 0:
        raise UserError(f"hierarchy.manager.temperature={manager.temperature} has to be above 0: gains are divided by it")
    magnitudes = {
        "goals.history": goals.history,
        "goals.place": goals.place,
        "manager.extrinsic": manager.extrinsic,
        "manager.novelty": manager.novelty,
        "manager.entropy": manager.entropy,
        "worker.goal": worker.goal,
        "worker.extrinsic": worker.extrinsic,
        "worker.imitation": worker.imitation,
        "manager.hindsight": manager.hindsight,
    }
    for key, number in magnitudes.items():
        if not number >= 0:
            raise UserError(f"hierarchy.{key}={number} is too small: give 0 or more")
    for key, floor in {"manager.novelty_floor": manager.novelty_floor, "worker.goal_floor": worker.goal_floor}.items():
        if not floor > 0:
            raise UserError(f"hierarchy.{key}={floor} has to be above 0: advantages are divided by it at least")
    for part, entropy in (("manager", manager.entropy), ("actor_critic", config.actor_critic.entropy)):
        target = manager.entropy_target if part == "manager" else config.actor_critic.entropy_target
        if target and not entropy > 0:
            raise UserError(f"hierarchy.{part}.entropy={entropy} has to be above 0: the adaptive weight starts from it")
