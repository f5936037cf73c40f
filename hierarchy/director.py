"""Manager and worker: goals chosen every K steps in the codes of the world model, pursued step by step.

After Director (Hafner et al. 2022, "Deep Hierarchical Planning from Pixels"), for discrete codes and a transformer's history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from envs.spaces.specs import ActionSpec
from hierarchy.abstract import abstract_trajectory, segment_reward, split, split_trajectory
from hierarchy.base import Hierarchy, Learning, PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.diagnostics import arrived, code_perplexity, reach
from hierarchy.flat import imagined_trajectory
from hierarchy.goal_rewards import GOAL_REWARDS, forgiving
from hierarchy.goals import NO_GOAL, Goal, GoalSpace
from hierarchy.hindsight import Experience, experience, merit
from hierarchy.manager import Manager
from hierarchy.mixed import Assessment, Replayed
from hierarchy.returns import lambda_returns
from hierarchy.trajectory import LatentTrajectory
from hierarchy.trust import Trust
from hierarchy.worker import Worker
from world_model.imagination import ImaginationEnv, Rollout
from world_model.latents import LatentSpec
from world_model.starts import Starts

GAIN_FLOOR = 0.05  # least deviation that what goals bring is divided by


@dataclass
class Given:
    """What rollouts are told in the place of the manager's goals.

    Attributes:
        code: (N, M), the goals that they begin with.
        where: (N,) bool, those that do.
        free: (N,) bool, those that have no goal at all.
        left: (N,) bool, those that were left to the manager, wherever they start; others may be, where no goal was to be had.
    """

    code: Tensor
    where: Tensor
    free: Tensor
    left: Tensor


class Pursuit:
    """Both levels as one policy of an imagined rollout: a new goal at its first step and every K steps after it."""

    def __init__(self, hierarchy: DirectorHierarchy, given: Given | None = None) -> None:
        self.hierarchy, self.step, self.given = hierarchy, 0, given
        self.goals: list[Goal] = []
        self.codes: list[Tensor] = []  # what the manager chose, or would have where there is no goal
        self.log_probs: list[Tensor] = []  # of choosing that

    def choose(self, z: Tensor, h: Tensor) -> None:
        """The manager's next goal; the first one may be given."""
        policy = self.hierarchy.manager.policy
        code, log_prob = policy.act(z, h)
        if self.given is not None and not self.goals:
            code = torch.where(self.given.where.unsqueeze(-1), self.given.code, code)
            log_prob = policy.log_prob(z, h, code)
        self.codes.append(code)
        self.log_probs.append(log_prob)
        told = code if self.given is None else code.masked_fill(self.given.free.unsqueeze(-1), NO_GOAL)
        self.goals.append(self.hierarchy.goals.decode(told))

    def __call__(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.step % self.hierarchy.period == 0:
            self.choose(z, h)
        self.step += 1
        worker = self.hierarchy.worker
        return worker.policy.act(*worker.view(z, h, self.goals[-1]))


class DirectorHierarchy(Hierarchy):
    """`hierarchy=director`. Its state: `goal` (N, M), the code in force; `clock` (N,), steps that it still lasts; `explore` (N,),
    whether the episode is played to learn from."""

    gives = frozenset({"reach"})
    updates: Tensor

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, config: HierarchyConfig) -> None:
        super().__init__()
        self.config, self.period = config, config.period
        self.goals = GoalSpace(latents, width, config.goals)
        self.manager = Manager(latents, width, config)
        self.worker = Worker(latents, width, actions, self.goals, config)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.trust = Trust()

    # -- acting ----------------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> PolicyState:
        device = self.updates.device
        goal = torch.zeros(batch, self.config.goals.groups, dtype=torch.int64, device=device)
        return {
            "goal": goal,
            "clock": torch.zeros(batch, dtype=torch.int64, device=device),
            "explore": torch.zeros(batch, dtype=torch.bool, device=device),
        }

    def exploring_state(self, batch: int) -> PolicyState:
        state = self.initial_state(batch)
        return state | {"explore": torch.ones_like(state["explore"])}

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return first | (state["clock"] <= 0)

    @torch.no_grad()
    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        new = self.decides(state, first)
        code, _ = self.manager.policy.act(z, h, greedy)
        if self.config.worker.free:  # an episode is played under goals, or without
            drawn = torch.rand(first.shape, device=z.device) >= self.trust()
            free = state["explore"] & torch.where(first, drawn, (state["goal"] == NO_GOAL).all(-1))
            code = code.masked_fill(free.unsqueeze(-1), NO_GOAL)
        goal = torch.where(new.unsqueeze(-1), code, state["goal"])
        return {**state, "goal": goal, "clock": torch.where(new, self.period, state["clock"]) - 1}

    @torch.no_grad()
    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.worker.policy.act(*self.worker.view(z, h, self.goals.decode(state["goal"])), greedy)

    def value(self, z: Tensor, h: Tensor) -> Tensor | None:
        return self.manager.policy.critic(z, h) if self.config.manager.reward == "sum" else None

    # -- learning --------------------------------------------------------------------------------------------------------

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        self.goals.observe(real.z, real.h)
        given = self._given(starts, real)
        pursuit = Pursuit(self, given)
        rollout = env.imagine(pursuit, starts, [self.manager.policy.actor, self.worker.policy.actor, self.goals])
        path = imagined_trajectory(rollout, discovery=self.config.discovery)
        pursuit.choose(path.z[:, -1], path.h[:, -1])  # what the worker would be told next, for what its last state is worth
        if given is not None:  # by rewards alone: what is news to a map is everywhere
            ahead = self.config.actor_critic.gamma ** torch.arange(rollout.reward.shape[1], device=rollout.reward.device)
            brought = (path.weight[:, :-1] * ahead * rollout.reward).sum(1)
            self.trust.update(brought, given.left, given.free)
        yield from self._teach_worker(path, Goal.stack(pursuit.goals), given)
        yield from self._teach_manager(path, rollout, pursuit, real)
        yield from self._teach_hindsight(path, real)
        yield from self._teach_goals(real)
        self.updates += 1

    @torch.no_grad()
    def _given(self, starts: Starts, real: LatentTrajectory) -> Given | None:
        """Goals that can be reached, for some of the rollouts: states that came within K steps of their starts in replay."""
        share, step = self.config.worker.hindsight, starts.step
        if not share and not self.config.worker.free:
            return None
        free = torch.rand(step.shape, device=step.device) < self.config.worker.free
        target = step + torch.randint(1, self.period + 1, step.shape, device=step.device)
        target = target.clamp(max=real.z.shape[1] - 1)
        ends = real.boundary.long().cumsum(1) - real.boundary.long()  # (B, T): ends of episodes before a step
        same = (ends.gather(1, target) == ends.gather(1, step)) & (target > step)
        rows = torch.arange(len(step), device=step.device).unsqueeze(1)
        code = self.goals.encode(real.z[rows, target], real.h[rows, target])
        drawn = (torch.rand(step.shape, device=step.device) < share) & ~free
        where, left = same & drawn, ~free & ~drawn
        return Given(code.flatten(0, 1), where.flatten(), free.flatten(), left.flatten())

    def _teach_worker(self, path: LatentTrajectory, goal: Goal, given: Given | None = None) -> Iterator[Learning]:
        """The goal's reward within segments, the environment's over the whole rollout, whose goals change on the way."""
        N, K, worker = len(path.reward), self.period, self.worker
        segments = split_trajectory(path, K)  # (N * S, K)
        own = goal.at(slice(0, -1))
        seen = self.goals.view(segments.z, segments.h, own.rows(), segments.cont)
        aimed = (own.code >= 0).all(-1)  # (N, S)
        other = self.goals.view(segments.z, segments.h, own.others(aimed[:, 0]).rows(), segments.cont)
        z, h = worker.view(segments.z, segments.h, own.rows().each())
        reward = GOAL_REWARDS[self.config.worker.reward](seen)
        with torch.no_grad():
            value = worker.learner("goal").target(z, h)
            paid = forgiving(reward, self.config.actor_critic.gamma * value[:, :-1], segments.cont)
        parts = replace(segments, z=z, h=h, reward=paid)
        last_z, last_h = worker.view(path.z[:, -1:], path.h[:, -1:], goal.at(slice(-1, None)))
        whole = replace(
            path,
            z=torch.cat([z[:, :-1].reshape(N, -1, z.shape[-1]), last_z], 1),
            h=torch.cat([h[:, :-1].reshape(N, -1, h.shape[-1]), last_h], 1),
        )
        extrinsic = worker.assess("extrinsic", whole)
        assessed = {
            "goal": worker.assess("goal", parts, value, aimed.flatten()),
            "extrinsic": Assessment(split(extrinsic.returns, K), split(extrinsic.advantage, K)),
        }
        weights = worker.weights(int(self.updates))
        weight = parts.weight[:, :-1] * aimed.view(-1, 1)
        end = parts.weight[:, -1].unflatten(0, (N, -1))
        chance, got = end * aimed, arrived(seen).unflatten(0, (N, -1))  # (N, S)
        if given is not None:  # the manager's goals alone
            chance = torch.cat([chance[:, :1] * ~given.where.unsqueeze(1), chance[:, 1:]], 1)
            granted = torch.cat([end[:, :1] * given.where.unsqueeze(1), torch.zeros_like(end[:, 1:])], 1)
            figures = {f"given/{name}": value for name, value in reach(seen, other, granted.flatten()).items()}
        else:
            figures = {}
        figures |= {f"goal/{name}": value for name, value in reach(seen, other, chance.flatten()).items()}
        figures["goal/reward"] = (reward * weight).sum() / weight.sum().clamp(min=1.0)
        figures["worker/extrinsic_weight"] = torch.tensor(weights["extrinsic"])
        if given is not None and self.config.worker.free:
            under, without = self.trust.worth.clone()
            figures |= {"goal/trust": self.trust(), "goal/brings": under, "goal/brings_without": without}
        self.told = {"reach": ((got * chance).sum(1) / chance.sum(1)).detach()}
        free = ~aimed.view(-1, 1)
        counted = {
            "goal": weights["goal"] * (~free).float(),
            "extrinsic": torch.where(free, 1.0, weights["extrinsic"]),
        }
        for learning in worker.learn(parts, assessed, counted, "worker"):
            learning.metrics |= figures
            if "worker/entropy" in learning.metrics:
                learning.metrics["entropy"] = learning.metrics["worker/entropy"]
            yield learning

    def _teach_manager(
        self, path: LatentTrajectory, rollout: Rollout, pursuit: Pursuit, real: LatentTrajectory
    ) -> Iterator[Learning]:
        """Steps of K, whose actions are goals: its own, those that were given teach it nothing."""
        manager, K, kind = self.manager, self.period, self.config.manager.reward
        gamma, lmbda = self.config.actor_critic.gamma, self.config.actor_critic.lmbda
        code, given = torch.stack(pursuit.codes[:-1], 1), pursuit.given  # (N, S, M)
        steps = abstract_trajectory(path, code, torch.stack(pursuit.log_probs[:-1], 1), K, gamma, kind)
        own = torch.ones(code.shape[:2], dtype=torch.bool, device=code.device)
        if given is not None:
            own = own & ~given.free.unsqueeze(1)
            own[:, 0] &= ~given.where
            steps = replace(steps, weight=torch.cat([steps.weight[:, :-1] * own, steps.weight[:, -1:]], 1))
        bonus = {
            "disagreement": lambda: rollout.disagreement,
            "novelty": lambda: self.goals.novelty(path.z[:, 1:], path.h[:, 1:]),
        }
        assessed = {"extrinsic": manager.assess("extrinsic", steps)}
        figures = {}
        for name in manager.rewards[1:]:
            found = bonus[name]()
            figures[f"manager/{name}"] = found.mean()
            reward = segment_reward(found, path.cont, K, gamma, kind)
            assessed[name] = manager.assess(name, replace(steps, reward=reward))
        weight, real_weight = steps.weight[:, :-1], real.weight[:, :-1]
        with torch.no_grad():  # states are worth the same whether a step is one or K, if rewards are summed up
            value = manager.policy.target(real.z, real.h)
            real_returns = lambda_returns(real.reward, real.cont, value, real.boundary, gamma, lmbda)
        figures |= {
            "imagined_return": (assessed["extrinsic"].returns * weight).sum() / weight.sum().clamp(min=1.0),
            "manager/perplexity": code_perplexity(code, self.config.goals.classes, own),
        }
        if self.config.discovery:
            alive = path.weight[:, :-1]
            figures["discovered"] = self.config.discovery * (rollout.discovered * alive).sum() / alive.sum()
        replayed = None
        if kind == "sum":
            figures["real_return"] = (real_returns * real_weight).sum() / real_weight.sum().clamp(min=1.0)
            replayed = Replayed(real, real_returns, self.config.replay_value)
        for learning in manager.learn(steps, assessed, manager.weights, "manager", replayed):
            learning.metrics |= figures
            yield learning

    def _teach_hindsight(self, path: LatentTrajectory, real: LatentTrajectory) -> Iterator[Learning]:
        """What came K steps later is what the manager should have asked for, the more the more it brought; what was done on the
        way to a state is how the worker gets there. From imagination and from replay."""
        config, manager, worker = self.config, self.manager.policy, self.worker.policy
        ask, imitate = config.manager.hindsight, config.worker.imitation
        if not ask and not imitate:
            return
        gamma, K = config.actor_critic.gamma, self.period
        with torch.no_grad():
            paths = [(each, manager.target(each.z, each.h), last) for each, last in ((path, K), (real, 0))]
            ahead = torch.tensor(K, device=path.z.device)
            asked = Experience.join(*(experience(each, value, ahead, gamma, last) for each, value, last in paths))
            sooner = [torch.randint(1, K + 1, each.reward.shape, device=ahead.device) for each, _, _ in paths]
            done = Experience.join(
                *(experience(each, value, steps, gamma, last) for (each, value, last), steps in zip(paths, sooner, strict=True))
            )
            code = self.goals.encode(asked.later_z, asked.later_h)
            weight = merit(asked.gain, asked.weight, config.manager.temperature, GAIN_FLOOR)
            z, h = self.worker.view(done.z, done.h, self.goals.decode(self.goals.encode(done.later_z, done.later_h)))
        count = config.actor_critic.minibatches
        parts = (torch.randperm(len(x), device=x.device).tensor_split(count) for x in (weight, done.weight))
        for a, b in zip(*parts, strict=True):
            asking = manager.imitation_loss(asked.z[a], asked.h[a], code[a], weight[a])
            doing = worker.imitation_loss(z[b], h[b], done.action[b], done.weight[b])
            metrics = {"manager/hindsight": asking.detach(), "worker/imitation": doing.detach()}
            yield Learning(ask * asking + imitate * doing, metrics, lambda: None)

    def _teach_goals(self, real: LatentTrajectory) -> Iterator[Learning]:
        """The autoencoder, on the states of replay."""
        z, h = real.z.flatten(0, 1), real.h.flatten(0, 1)
        for rows in torch.randperm(len(z), device=z.device).tensor_split(self.config.actor_critic.minibatches):
            loss, metrics = self.goals.loss(z[rows], h[rows])
            yield Learning(loss, metrics, lambda: None)
