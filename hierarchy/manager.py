"""Who chooses the goals: a policy whose actions are codes of the goal space."""

from __future__ import annotations

from dataclasses import replace

from envs.spaces.specs import ActionSpec
from hierarchy.config import HierarchyConfig
from hierarchy.mixed import MixedPolicy
from world_model.latents import LatentSpec


class Manager(MixedPolicy):
    """Chooses one code every K steps. Rewards: the environment's, the novelty of states, and the model's disagreement where
    `hierarchy.explore` asks for it."""

    def __init__(self, latents: LatentSpec, width: int, config: HierarchyConfig) -> None:
        learning, own, goals = config.actor_critic, config.manager, config.goals
        self.weights = {"extrinsic": own.extrinsic, "novelty": own.novelty}
        floors = {"extrinsic": learning.return_floor, "novelty": own.novelty_floor}
        if config.explore:
            self.weights["disagreement"], floors["disagreement"] = config.explore, own.novelty_floor
        learning = replace(
            learning,
            gamma=learning.gamma**config.period if own.reward == "sum" else learning.gamma,
            entropy=own.entropy,
            entropy_target=own.entropy_target,
        )
        codes = ActionSpec("multi_discrete", goals.groups, classes=(goals.classes,) * goals.groups)
        super().__init__(latents, width, codes, learning, floors)
