"""Manager and worker: goals chosen every K steps in the codes of the world model, pursued step by step.

After Director (Hafner et al. 2022, "Deep Hierarchical Planning from Pixels"), for discrete codes and a transformer's history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from envs.spaces.specs import ActionSpec
from hierarchy.abstract import abstract_trajectory, segment_reward, split, split_trajectory
from hierarchy.base import Hierarchy, Learning, PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.diagnostics import code_perplexity, heard, reach, segment_ends
from hierarchy.flat import FlatPolicy, imagined_trajectory
from hierarchy.given import Given, give
from hierarchy.goal import NO_GOAL, Goal
from hierarchy.goal_rewards import GOAL_REWARDS, forgiving
from hierarchy.goals import GoalSpace
from hierarchy.hindsight import Experience, earlier, experience, merit
from hierarchy.manager import Manager
from hierarchy.mixed import Assessment, Replayed
from hierarchy.pursuit import Pursuit
from hierarchy.returns import lambda_returns, weighted_mean
from hierarchy.trajectory import LatentTrajectory
from hierarchy.worker import Worker
from world_model.imagination import ImaginationEnv, Rollout
from world_model.latents import LatentSpec
from world_model.math import forked
from world_model.starts import Starts

PRACTICE = 0.5  # share of the episodes that are the explorer's: it and the worker both learn from what they do themselves
GAIN_FLOOR = 0.05  # least deviation that what goals bring is divided by
RETOLD = 0.5  # share of the states of an update that are told in hindsight: neighbours teach much the same


class DirectorHierarchy(Hierarchy):
    """`hierarchy=director`: a manager, a worker, and an explorer that knows no goals.

    Its state: `goal` (N, M), the code in force; `anchor` (N, P), the poses where it was chosen; `clock` (N,), steps that it still
    lasts; `explore` (N,), whether the episode is played to learn from.
    """

    gives = frozenset({"reach"})

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, config: HierarchyConfig) -> None:
        super().__init__()
        self.config, self.period = config, config.period
        self.goals = GoalSpace(latents, width, config.goals, config.period)
        self.poses = bool(self.goals.places)
        self.manager = Manager(latents, width, config)
        self.worker = Worker(latents, width, actions, self.goals, config)
        self.explorer = FlatPolicy(latents, width, actions, config) if config.worker.free else None

    # -- acting ----------------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> PolicyState:
        device = self.goals.index.device
        goal = torch.zeros(batch, self.config.goals.groups, dtype=torch.int64, device=device)
        return {
            "goal": goal,
            "anchor": torch.zeros(batch, self.goals.places, dtype=torch.int64, device=device),
            "clock": torch.zeros(batch, dtype=torch.int64, device=device),
            "explore": torch.zeros(batch, dtype=torch.bool, device=device),
        }

    def exploring_state(self, batch: int) -> PolicyState:
        state = self.initial_state(batch)
        return state | {"explore": torch.ones_like(state["explore"])}

    def practice(self, state: PolicyState) -> Tensor:
        return (state["goal"] == NO_GOAL).all(-1)

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return first | (state["clock"] <= 0)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        return self._plan(z, h, state, first, greedy or not self.config.manager.sample)

    def propose(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor) -> tuple[Tensor, Tensor, PolicyState]:
        state = self._plan(z, h, state, first, likeliest=False)
        return *self.follow(z, h, state), state

    @torch.no_grad()
    def _plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, likeliest: bool) -> PolicyState:
        """The state with new goals where they are due: the likeliest ones, or drawn ones."""
        new = self.decides(state, first)
        code, _ = self.manager.policy.act(z, h, likeliest)
        if self.explorer is not None:  # an episode is played under goals, or without
            drawn = torch.rand(first.shape, device=z.device) < PRACTICE
            free = state["explore"] & torch.where(first, drawn, self.practice(state))
            code = code.masked_fill(free.unsqueeze(-1), NO_GOAL)
        goal = torch.where(new.unsqueeze(-1), code, state["goal"])
        anchor = torch.where(new.unsqueeze(-1), self.goals.poses(h), state["anchor"])
        return {**state, "goal": goal, "anchor": anchor, "clock": torch.where(new, self.period, state["clock"]) - 1}

    @torch.no_grad()
    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        goal = self.goals.decode(state["goal"], state["anchor"])
        action, log_prob = self.worker.policy.act(*self.worker.view(z, h, goal, state["clock"] + 1), greedy)
        if self.explorer is None:
            return action, log_prob
        alone = self.practice(state)
        own, how_likely = self.explorer.policy.act(z, h, greedy)
        return torch.where(alone.view(-1, *[1] * (action.dim() - 1)), own, action), torch.where(alone, how_likely, log_prob)

    def value(self, z: Tensor, h: Tensor) -> Tensor | None:
        return self.manager.policy.critic(z, h) if self.config.manager.reward == "sum" else None

    # -- learning --------------------------------------------------------------------------------------------------------

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        before = torch.randint(0, self.period + 1, real.boundary.shape, device=real.boundary.device)
        anchor = earlier(self.goals.poses(real.h), real.boundary, before)
        self.goals.observe(real.z, real.h, anchor)
        given = give(starts, real, self.goals, self.config)
        alone = None if self.explorer is None else self.explorer.policy
        pursuit = Pursuit(self.manager, self.worker, alone, self.goals, self.period, given)
        actors = [policy.actor for policy in (self.manager.policy, self.worker.policy, alone) if policy is not None]
        rollout = env.imagine(pursuit, starts, [*actors, self.goals])
        paths = imagined_trajectory(rollout, discovery=self.config.discovery)
        path = paths.rows(given.under)
        pursuit.choose(path.z[:, -1], path.h[:, -1])  # what the worker would be told next, for what its last state is worth
        yield from self._teach_worker(path, Goal.stack(pursuit.goals), given)
        yield from self._teach_manager(path, rollout, pursuit, real)
        yield from self._teach_hindsight(path if self.explorer is None else paths.rows(given.alone), real)
        yield from self._teach_goals(real, anchor)
        if self.explorer is not None:
            for learning in self.explorer.teach(paths.rows(given.alone), real):
                learning.metrics = {f"explorer/{name}": value for name, value in learning.metrics.items()}
                yield learning

    def _teach_worker(self, path: LatentTrajectory, goal: Goal, given: Given) -> Iterator[Learning]:
        """The goal's reward within segments, what counts of which is where they end; the environment's over the whole rollout,
        whose goals change on the way."""
        config, worker, K = self.config.worker, self.worker, self.period
        P = len(path.reward)
        own = goal.at(slice(0, -1))
        segments = split_trajectory(path, K)  # (P * S, K)
        left = torch.arange(K, -1, -1, device=path.z.device)
        z, h = worker.view(segments.z, segments.h, own.rows().each(), left)
        parts = replace(segments, z=z, h=h)
        last_z, last_h = worker.view(path.z[:, -1:], path.h[:, -1:], goal.at(slice(-1, None)), left[:1])
        whole = replace(
            path,
            z=torch.cat([z[:, :-1].reshape(P, -1, z.shape[-1]), last_z], 1),
            h=torch.cat([h[:, :-1].reshape(P, -1, h.shape[-1]), last_h], 1),
        )
        reward, pursued, figures = self._pursued(path, segments, own, given)
        with torch.no_grad():
            value = worker.learner("goal").target(z, h)
            value[:, -1] = 0.0  # then there is another goal
            paid = forgiving(reward, self.config.actor_critic.gamma * value[:, :-1], parts.cont)
            expected = worker.learner("extrinsic").target(whole.z, whole.h)
            expected[:, -1] = self._after(path, expected[:, -1])
        found = worker.assess("extrinsic", whole, expected)
        assessed = {
            "goal": worker.assess("goal", replace(parts, reward=paid), value),
            "extrinsic": Assessment(split(found.returns, K), split(found.advantage, K)),
        }
        weights = {"goal": config.goal, "extrinsic": config.extrinsic}
        among = torch.full((P + len(given.alone),), torch.nan, device=pursued.device)
        self.told = {"reach": among.index_copy(0, given.under, pursued)}
        for learning in worker.learn(parts, assessed, weights, "worker"):
            learning.metrics |= figures
            if "worker/entropy" in learning.metrics:
                learning.metrics["entropy"] = learning.metrics["worker/entropy"]
            yield learning

    def _after(self, path: LatentTrajectory, otherwise: Tensor) -> Tensor:
        """What the last states of P rollouts are worth (P,): to the explorer, if there is one, whose critic knows real
        returns."""
        return otherwise if self.explorer is None else self.explorer.policy.target(path.z[:, -1], path.h[:, -1])

    @torch.no_grad()
    def _pursued(
        self, path: LatentTrajectory, segments: LatentTrajectory, goal: Goal, given: Given
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What P rollouts made of their goals (P, S): rewards of their segments (P * S, K), the share (P,) of the manager's goals
        that were reached, and figures of both kinds of goals."""
        seen = self.goals.view(segments.z, segments.h, goal.rows(), segments.cont)
        reward = GOAL_REWARDS[self.config.worker.reward](seen)
        # A segment's end is there if the steps before it went on.
        came = segment_ends(seen)
        before = segments.weight.gather(1, came.index.unsqueeze(1) - 1).squeeze(1)
        there, got = (x.unflatten(0, (len(given.under), -1)) for x in (before, came.arrived))  # (P, S)
        granted = torch.zeros_like(there)
        granted[:, 0] = given.where.float()
        own = there * (1 - granted)
        figures = {f"goal/{name}": value for name, value in reach(came, own.flatten()).items()}
        if self.config.worker.hindsight:
            figures |= {f"given/{name}": value for name, value in reach(came, (there * granted).flatten()).items()}
        beside, differs = self._drawn_beside(path, goal)
        drawn = own * ~given.sure.unsqueeze(1) * differs
        other = self.goals.view(segments.z, segments.h, beside.rows(), segments.cont)
        figures |= {f"goal/{name}": value for name, value in heard(came, segment_ends(other), drawn.flatten()).items()}
        figures["goal/reward"] = weighted_mean(reward, segments.weight[:, :-1])
        return reward, (got * own).sum(1) / own.sum(1), figures

    def _drawn_beside(self, path: LatentTrajectory, goal: Goal) -> tuple[Goal, Tensor]:
        """Goals (P, S) that the manager draws once more in the states where those of a path were chosen, and (P, S) bool, whether
        they ask for something else."""
        z, h = path.z[:, : -1 : self.period], path.h[:, : -1 : self.period]
        with forked(z.device):  # to listen changes nothing that is learned
            code, _ = self.manager.policy.act(z.flatten(0, 1), h.flatten(0, 1))
        decoded = self.goals.decode(code, goal.anchor.flatten(0, 1)).map(lambda x: x.unflatten(0, z.shape[:2]))
        return decoded, decoded.differs(goal)

    def _teach_manager(
        self, path: LatentTrajectory, rollout: Rollout, pursuit: Pursuit, real: LatentTrajectory
    ) -> Iterator[Learning]:
        """Steps of K, whose actions are goals. Its policy learns from those it drew, its critics from those it chose."""
        manager, K, kind = self.manager, self.period, self.config.manager.reward
        gamma, lmbda = self.config.actor_critic.gamma, self.config.actor_critic.lmbda
        figures = {}
        if self.config.discovery:
            news = rollout.discovered[pursuit.given.under]
            figures["discovered"] = self.config.discovery * weighted_mean(news, path.weight[:, :-1])
        under, code = pursuit.given.under, torch.stack(pursuit.codes[:-1], 1)  # (P, S, M)
        anchors = self.goals.poses(path.h[:, :-1:K])
        steps = abstract_trajectory(path, code, torch.stack(pursuit.log_probs[:-1], 1), K, gamma, kind)
        chosen = torch.ones(code.shape[:2], dtype=torch.bool, device=code.device)
        chosen[:, 0] = ~pursuit.given.where
        own = chosen & ~pursuit.given.sure.unsqueeze(1)
        steps = steps.only(chosen)
        bonus = {
            "disagreement": lambda: rollout.disagreement[under],
            "novelty": lambda: self.goals.novelty(path.z[:, 1:], path.h[:, 1:], anchors.repeat_interleave(K, 1)),
        }
        with torch.no_grad():
            expected = manager.policy.target(steps.z, steps.h)
            if kind == "sum":  # states are worth the same whether a step is one or K
                expected[:, -1] = self._after(path, expected[:, -1])
        assessed = {"extrinsic": manager.assess("extrinsic", steps, expected)}
        for name in manager.rewards[1:]:
            found = bonus[name]()
            figures[f"manager/{name}"] = found.mean()
            reward = segment_reward(found, path.cont, K, gamma, kind)
            assessed[name] = manager.assess(name, replace(steps, reward=reward))
        extrinsic = assessed["extrinsic"]  # its critic also knows episodes without goals: beside those all goals might look bad
        extrinsic.advantage = extrinsic.advantage - weighted_mean(extrinsic.advantage, steps.weight[:, :-1] * own)
        weight, real_weight = steps.weight[:, :-1], real.weight[:, :-1]
        with torch.no_grad():
            value = manager.policy.target(real.z, real.h)
            real_returns = lambda_returns(real.reward, real.cont, value, real.boundary, gamma, lmbda)
        figures |= {
            "imagined_return": weighted_mean(extrinsic.returns, weight),
            "manager/perplexity": code_perplexity(code, self.config.goals.classes, own),
        }
        replayed = None
        if kind == "sum":
            figures["real_return"] = weighted_mean(real_returns, real_weight)
            replayed = Replayed(real, real_returns, self.config.replay_value)
        for learning in manager.learn(steps, assessed, manager.weights, "manager", replayed, own):
            learning.metrics |= figures
            yield learning

    def _teach_hindsight(self, path: LatentTrajectory, real: LatentTrajectory) -> Iterator[Learning]:
        """What came K steps later is what the manager should have asked for, the more the more it brought; what was done on the
        way to a state is how the worker gets there, likewise. From replay and imagination, the explorer's if there is one."""
        config, manager, worker = self.config, self.manager.policy, self.worker.policy
        ask, imitate = config.manager.hindsight, config.worker.imitation
        if not ask and not imitate:
            return
        gamma, K = config.actor_critic.gamma, self.period
        with torch.no_grad():
            paths = [(each, manager.target(each.z, each.h), last) for each, last in ((path, K), (real, 0))]
            ahead = torch.tensor(K, device=path.z.device)
            asked = Experience.join(*(experience(each, value, ahead, gamma, last) for each, value, last in paths)).draw(RETOLD)
            sooner = [torch.randint(1, K + 1, each.reward.shape, device=ahead.device) for each, _, _ in paths]
            done = Experience.join(
                *(
                    experience(each, value, steps, gamma, last, K)
                    for (each, value, last), steps in zip(paths, sooner, strict=True)
                )
            ).draw(RETOLD)
            code = self.goals.encode(asked.later_z, asked.later_h, self.goals.poses(asked.h))
            weight = merit(asked.gain, asked.weight, config.manager.temperature, GAIN_FLOOR)
            anchor = self.goals.poses(done.chosen_h)
            goal = self.goals.decode(self.goals.encode(done.later_z, done.later_h, anchor), anchor)
            z, h = self.worker.view(done.z, done.h, goal, done.steps)
            better = merit(done.gain, done.weight, config.manager.temperature, GAIN_FLOOR)
        count = config.actor_critic.minibatches
        parts = (torch.randperm(len(x), device=x.device).tensor_split(count) for x in (weight, done.weight))
        for a, b in zip(*parts, strict=True):
            asking = manager.imitation_loss(asked.z[a], asked.h[a], code[a], weight[a])
            doing = worker.imitation_loss(z[b], h[b], done.action[b], better[b])
            metrics = {"manager/hindsight": asking.detach(), "worker/imitation": doing.detach()}
            yield Learning(ask * asking + imitate * doing, metrics, lambda: None)

    def _teach_goals(self, real: LatentTrajectory, anchor: Tensor) -> Iterator[Learning]:
        """The autoencoder, on the states of replay, seen from poses (B, T + 1, P)."""
        z, h, anchor = real.z.flatten(0, 1), real.h.flatten(0, 1), anchor.flatten(0, 1)
        for rows in torch.randperm(len(z), device=z.device).tensor_split(self.config.actor_critic.minibatches):
            loss, metrics = self.goals.loss(z[rows], h[rows], anchor[rows])
            yield Learning(loss, metrics, lambda: None)
