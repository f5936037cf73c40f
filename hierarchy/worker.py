"""Who pursues the goals: a policy that sees its goal beside the state, and which groups of the state agree with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from envs.spaces.specs import ActionSpec
from hierarchy.config import HierarchyConfig
from hierarchy.goal import Goal
from hierarchy.goals import GoalSpace
from hierarchy.mixed import MixedPolicy
from world_model.latents import LatentBlock, LatentSpec

PREFIX = "~goal/"  # of the keys of a goal's blocks
GIVEN = "~goal"  # key of the block that says whether there is a goal


def worker_latents(latents: LatentSpec, goals: LatentSpec) -> LatentSpec:
    """What a worker sees as codes: the state, whether there is a goal, and the goal's own codes, group by group."""
    given = LatentBlock(GIVEN, "categorical", (2,))
    blocks = [
        replace(block, key=PREFIX + block.key, presence=PREFIX + block.presence if block.presence else GIVEN)
        for block in goals.blocks
    ]
    return LatentSpec((*latents.blocks, given, *blocks))


class Worker(MixedPolicy):
    """Acts under a goal. Rewards: the goal's (`hierarchy.worker.reward`), and the environment's."""

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, goals: GoalSpace, config: HierarchyConfig) -> None:
        codes = config.goals.groups * config.goals.classes
        floors = {"goal": config.worker.goal_floor, "extrinsic": config.actor_critic.return_floor}
        spec = worker_latents(latents, goals.spec)
        super().__init__(spec, width + codes + goals.groups + config.period, actions, config.actor_critic, floors)
        self.period = config.period
        self._goals = [goals]  # in a list: it is a part of the hierarchy, not of the worker

    def view(self, z: Tensor, h: Tensor, goal: Goal, left: Tensor) -> tuple[Tensor, Tensor]:
        """What the worker sees: the state and its goal as codes (..., Z'), places from where it is; beside them the history, the
        goal's code, where state and goal agree, and the steps that are left (..., V'). Nothing but the state without a goal.

        Args:
            z: (..., Z). h: (..., V + P). goal: (...). left: (...) int64, steps that the goal still lasts, from `period` to 0.
        """
        goals = self._goals[0]
        shape = z.shape[:-1]
        groups, there = goal.groups.expand(*shape, -1), goal.there.expand(*shape, -1)
        given = (goal.code >= 0).all(-1, keepdim=True).expand(*shape, 1)
        agree = (goals.codes(z, h, goal.anchor) == groups) & goals.there(z) & there
        code = goals.one_hot(goal.code).expand(*shape, -1)
        ahead = goals.ahead(goal, h).expand(*shape, -1) * there
        clock = (left.expand(shape).unsqueeze(-1) == torch.arange(1, self.period + 1, device=z.device)) & given
        return torch.cat([z, given.long(), ahead], -1), torch.cat([h[..., : goals.width], code, agree.float(), clock.float()], -1)
