"""Who chooses the goals: a policy whose actions are codes of the goal space."""

from __future__ import annotations

from dataclasses import replace

from envs.spaces.specs import ActionSpec
from hierarchy.config import HierarchyConfig
from hierarchy.mixed import MixedPolicy
from world_model.latents import LatentSpec


class Manager(MixedPolicy):
    """Chooses one code every K steps. Rewards: the environment's, and those with a weight of the novelty of states
    (`hierarchy.manager.novelty`) and the model's disagreement (`hierarchy.explore`)."""

    def __init__(self, latents: LatentSpec, width: int, config: HierarchyConfig) -> None:
        learning, own, goals = config.actor_critic, config.manager, config.goals
        self.weights, floors = {"extrinsic": own.extrinsic}, {"extrinsic": learning.return_floor}
        for name, weight in {"novelty": own.novelty, "disagreement": config.explore}.items():
            if weight:
                self.weights[name], floors[name] = weight, own.novelty_floor
        learning = replace(
            learning,
            gamma=learning.gamma**config.period if own.reward == "sum" else learning.gamma,
            entropy=own.entropy,
            entropy_target=own.entropy_target,
        )
        codes = ActionSpec("multi_discrete", goals.groups, classes=(goals.classes,) * goals.groups)
        super().__init__(latents, width, codes, learning, floors, ordered=True)
