"""Are the numbers of a config possible, and do they fit together? Asked before anything is built."""

from __future__ import annotations

from agent.acting.cluster import check_installed
from agent.config import RunConfig
from agent.dream.job import check_dream
from agent.evaluation import check_evaluation
from agent.replay_settings import check_replay
from envs.errors import UserError
from hierarchy.checks import check_director
from world_model.config import PRECISIONS


def check_settings(config: RunConfig, processes: int = 1) -> None:
    """Refuse at the start what would end a run in the middle.

    Raises:
        UserError: numbers that do not fit together.
    """
    train, envs = config.train, config.env.num_envs
    check_ranges(config)
    enough = processes * envs * (train.length - 1)  # so that every stream holds a whole sequence when learning begins
    if train.random_steps < enough:
        of = f" in each of {processes} processes" if processes > 1 else ""
        raise UserError(
            f"train.random_steps={train.random_steps} is too few for sequences of train.length={train.length} steps from "
            f"env.num_envs={envs} environments{of}: give {enough} or more"
        )
    if train.batch % processes:
        raise UserError(f"train.batch={train.batch} is shared out over {processes} processes: give a multiple of {processes}")
    if config.replay.capacity < envs * train.length:
        raise UserError(
            f"replay.capacity={config.replay.capacity} holds no sequence of train.length={train.length} steps for each of "
            f"env.num_envs={envs} environments: give {envs * train.length} or more"
        )
    if gathers_by_step(config) and config.hierarchy.plan_training and config.hierarchy.planner == "goals":
        raise UserError(
            "hierarchy.plan_training=true with hierarchy.planner=goals plans now on one process and now on another, for which "
            "sharding.gather=step makes them wait for ever: give sharding.gather=rollout"
        )
    if config.hierarchy.starts > train.length:
        raise UserError(f"hierarchy.starts={config.hierarchy.starts} cannot be more than train.length={train.length}")
    check_acting(config)
    if processes > 1 and config.acting.mode == "async":
        raise UserError("acting.mode=async acts beside one process that learns: give acting=sync, or start it without a launcher")
    check_evaluation(config.eval, config.hierarchy.name)
    check_dream(config.dream)


def check_acting(config: RunConfig) -> None:
    """Refuse ways of acting that there are none of.

    Raises:
        UserError: says which key.
    """
    acting, envs = config.acting, config.env.num_envs
    if acting.mode not in ("sync", "async"):
        raise UserError(f"acting.mode={acting.mode} is unknown; choose sync or async")
    if not 1 <= acting.actors <= envs:
        raise UserError(f"acting.actors={acting.actors} share out env.num_envs={envs}: give from 1 to {envs}")
    counts = {"acting.publish_every": acting.publish_every, "acting.ahead": acting.ahead, "acting.threads": acting.threads}
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"{key}={count} is too few: give 1 or more")
    if acting.backend not in ("processes", "ray"):
        raise UserError(f"acting.backend={acting.backend} is unknown; choose processes or ray")
    if acting.mode == "sync":
        if acting.backend != "processes":
            raise UserError(f"acting.backend={acting.backend} is for actors of their own: give acting=async, or leave it out")
        return
    if gathers_by_step(config):
        raise UserError("acting=async hands out whole weights, which sharding.gather=step never has: give gather=rollout")
    if acting.backend == "processes":
        for key, value in {"acting.address": acting.address, "acting.gpus": acting.gpus}.items():
            if value:
                raise UserError(f"{key}={value} is for actors of a Ray cluster: give acting.backend=ray, or leave it out")
        return
    if acting.address is not None and "://" in acting.address:
        raise UserError(
            f"acting.address={acting.address} is reached through a proxy, and the learner has to be on a machine of the cluster: "
            "run ray start --address there, and give acting.address=auto"
        )
    if acting.gpus < 0 or (acting.gpus == 0 and acting.device != "cpu"):
        raise UserError(
            f"acting.gpus={acting.gpus:g} has to be above 0 with acting.device={acting.device}: Ray shows an actor no other"
        )
    check_installed()


def gathers_by_step(config: RunConfig) -> bool:
    """Whether no process holds the whole world model, so that all have to call it equally often."""
    return config.sharding.engine == "deepspeed" and config.sharding.stage == 3 and config.sharding.gather == "step"


def check_ranges(config: RunConfig) -> None:
    """Refuse numbers that make no sense whatever the job is.

    Raises:
        UserError: a number out of range.
    """
    train, model, hierarchy = config.train, config.model, config.hierarchy
    learning = hierarchy.actor_critic
    counts = {
        "env.num_envs": config.env.num_envs,
        "train.batch": train.batch,
        "model.layers": model.layers,
        "model.heads": model.heads,
        "model.window": model.window,
        "model.text_words": model.text_words,
        "model.table_size": model.table_size,
        "model.image_patch": model.image_patch,
        "model.image_codes": model.image_codes,
        "hierarchy.horizon": hierarchy.horizon,
        "hierarchy.starts": hierarchy.starts,
        "hierarchy.actor_critic.epochs": learning.epochs,
        "hierarchy.actor_critic.minibatches": learning.minibatches,
        "curriculum.window": config.curriculum.window,
    }
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"{key}={count} is too few: give 1 or more")
    if train.burn_in < 0:
        raise UserError(f"train.burn_in={train.burn_in} has to be 0 or more: it is the number of steps before each sequence")
    if train.length < 2:
        raise UserError(f"train.length={train.length} is too few: give 2 or more, for a step and what follows it")
    for key, pace in {"train.update_every": train.update_every, "train.update_every_first": train.update_every_first}.items():
        if pace <= 0:
            raise UserError(f"{key}={pace} has to be above 0: it is the number of env steps per update")
    if not 0 <= train.validation <= 0.5:
        raise UserError(
            f"train.validation={train.validation} has to be from 0 to 0.5: it is the share of episodes not learned from"
        )
    if not 0 <= model.augment.cell_dropout < 1:
        raise UserError(f"model.augment.cell_dropout={model.augment.cell_dropout} is no share: give 0 or more, and less than 1")
    for key, bins in {"model.bins": model.bins, "hierarchy.actor_critic.bins": learning.bins}.items():
        if bins < 3 or bins % 2 == 0:
            raise UserError(f"{key}={bins} has to be odd and at least 3, so that one bin is zero")
    magnitudes = {
        "train.validation_after": train.validation_after,
        "train.look_every": train.look_every,
        "model.text_heads": model.text_heads,
        "model.augment.shift": model.augment.shift,
        "model.attention_heads": model.attention_heads,
        "hierarchy.explore": hierarchy.explore,
        "hierarchy.discovery": hierarchy.discovery,
        "model.image_radius": model.image_radius,
    }
    for key, number in magnitudes.items():
        if not number >= 0:
            raise UserError(f"{key}={number} is too small: give 0 or more")
    if not 0 < learning.min_std <= learning.max_std:
        raise UserError(
            f"hierarchy.actor_critic.min_std={learning.min_std} has to be above 0 "
            f"and at most hierarchy.actor_critic.max_std={learning.max_std}"
        )
    if not 0 < learning.gamma <= 1:
        raise UserError(f"hierarchy.actor_critic.gamma={learning.gamma} has to be above 0 and at most 1")
    if model.ensemble < 0 or model.ensemble == 1:
        raise UserError(f"model.ensemble={model.ensemble} cannot disagree: give 2 or more heads, or 0 for none")
    if hierarchy.explore and not model.ensemble:
        raise UserError(f"hierarchy.explore={hierarchy.explore} needs an ensemble that may disagree: give model.ensemble=5, say")
    if not 0 <= learning.entropy_target < 1:
        raise UserError(
            f"hierarchy.actor_critic.entropy_target={learning.entropy_target} is a share: give 0 or more, and less than 1"
        )
    if hierarchy.name == "director":
        check_director(hierarchy)
    check_replay(config.replay)
    if model.precision not in PRECISIONS:
        raise UserError(f"model.precision={model.precision} is unknown; choose one of {', '.join(PRECISIONS)}")
    if not 0 <= model.modality_dropout <= 1:
        raise UserError(f"model.modality_dropout={model.modality_dropout} is a share: give 0 to 1")
    if model.attention_heads and model.hidden % (4 * model.attention_heads):  # it works at a quarter of the width
        heads = f"model.attention_heads={model.attention_heads}"
        raise UserError(f"model.hidden={model.hidden} has to be a multiple of four times {heads}")
    if model.width % model.heads:
        raise UserError(f"model.width={model.width} has to be a multiple of model.heads={model.heads}")
