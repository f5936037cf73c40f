"""Manager and worker together: clocks, goals, what each sees and what each learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.errors import UserError
from hierarchy import HierarchyConfig, make_hierarchy
from hierarchy.base import Learning
from hierarchy.checks import check_director
from hierarchy.config import GoalConfig, ManagerConfig, WorkerConfig
from hierarchy.director import DirectorHierarchy
from hierarchy.given import Given, give
from hierarchy.goal import NO_GOAL
from hierarchy.mixed import Assessment
from hierarchy.trajectory import LatentTrajectory
from tests.hierarchy.toy import ACTIONS, LATENTS, WIDTH, TwoStates, actor_critic, nowhere, states, trajectory
from world_model.imagination import Rollout

GOALS = GoalConfig(groups=3, classes=4, hidden=16, symbol_width=4)


def config(**keys: Any) -> HierarchyConfig:
    parts: dict[str, Any] = dict(name="director", horizon=4, period=2, goals=GOALS, actor_critic=actor_critic())
    return HierarchyConfig(**(parts | keys))


def director(**keys: Any) -> DirectorHierarchy:
    torch.manual_seed(0)
    found = make_hierarchy(config(**keys), LATENTS, WIDTH, ACTIONS)
    assert isinstance(found, DirectorHierarchy)
    return found


def real() -> LatentTrajectory:
    """Four real episodes in both states: 0, 1, then the end, paid with 1."""
    return trajectory([0, 1, 1], [1, 1], [-0.7, -0.7], [0.0, 1.0], cont=torch.tensor([[1.0, 0.0]])).rows(torch.zeros(4).long())


def told(
    monkeypatch: pytest.MonkeyPatch, code: Tensor, where: Tensor, free: Tensor | None = None, sure: Tensor | None = None
) -> None:
    """What the 32 rollouts are given from now on: `code` (32, M) `where` (32,) that is; nothing to those that
    are `free`; those that are `sure` have the likeliest goals."""
    free, sure = (torch.zeros_like(where) if x is None else x for x in (free, sure))
    under = (~free).nonzero().squeeze(1)
    found = Given(under, free.nonzero().squeeze(1), code[under], where[under], sure[under])
    monkeypatch.setattr("hierarchy.director.give", lambda *_: found)


STARTS = SimpleNamespace(step=torch.tensor([[0, 1, 0, 1, 0, 1, 0, 2]] * 4))  # of the 32 rollouts of `TwoStates`, in `real`


def learn(hierarchy: DirectorHierarchy, rounds: int = 1, world: Any = None) -> list[Learning]:
    """All lessons of so many updates, each taken by one optimiser as the trainer does."""
    optimizer = torch.optim.Adam([p for p in hierarchy.parameters() if p.requires_grad], lr=1e-2)
    found = []
    for _ in range(rounds):
        for learning in hierarchy.learn(world or TwoStates(), STARTS, real()):  # type: ignore[arg-type]
            optimizer.zero_grad()
            learning.loss.backward()
            optimizer.step()
            learning.after()
            found.append(learning)
    return found


def act(hierarchy: DirectorHierarchy, state: dict[str, Tensor], *first: bool) -> tuple[Tensor, dict[str, Tensor]]:
    z, h = states(*([0] * len(first)))
    action, log_prob, state = hierarchy.act(z, h, state, torch.tensor(first))
    assert action.shape == log_prob.shape == (len(first),)
    return action, state


def test_a_goal_lasts_for_its_period_and_a_new_episode_gets_a_new_one_at_once():
    hierarchy = director(horizon=6, period=3)
    state = hierarchy.initial_state(2)
    decided = []
    for first in ([True, True], [False, False], [False, True], [False, False], [False, False], [False, False]):
        before = state["goal"]
        decided.append(hierarchy.decides(state, torch.tensor(first)).tolist())
        _, state = act(hierarchy, state, *first)
        kept = ~torch.tensor(decided[-1])
        assert torch.equal(state["goal"][kept], before[kept])
    assert [row[0] for row in decided] == [True, False, False, True, False, False]
    assert [row[1] for row in decided] == [True, False, True, False, False, True]


def test_acting_leaves_the_state_it_was_given_alone_and_keeps_its_shapes():
    hierarchy = director()
    state = hierarchy.initial_state(3)
    before = {name: value.clone() for name, value in state.items()}
    _, after = act(hierarchy, state, True, True, True)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert {name: (x.shape, x.dtype) for name, x in after.items()} == {name: (x.shape, x.dtype) for name, x in before.items()}


def test_in_imagination_the_manager_chooses_at_every_kth_step():
    hierarchy = director(horizon=4, period=2)
    asked: list[int] = []
    chosen = hierarchy.manager.policy.act
    hierarchy.manager.policy.act = lambda z, h, greedy=False: (asked.append(len(z)), chosen(z, h, greedy))[1]  # type: ignore
    learn(hierarchy)
    assert asked == [*[32, 32] * 3, 64], "for the likeliest and a drawn one, at steps 0, 2 and then; and for others beside them"


def test_some_rollouts_begin_with_a_goal_that_came_in_replay_and_some_have_none():
    goals = director().goals
    path = real()
    path.boundary = torch.tensor([[False, True, False]]).expand(4, -1)  # an episode ends at step 1
    found = give(STARTS, path, goals, config(worker=WorkerConfig(hindsight=1.0)))  # type: ignore[arg-type]
    rows, at = found.under.argsort(), STARTS.step.flatten()
    assert found.under[rows].tolist() == list(range(32)) and not len(found.alone)
    assert not found.where[rows][at > 0].any(), "step 2 is of another episode than step 1, and nothing follows it"
    assert found.where[rows][at == 0].any()
    assert torch.equal(found.code, goals.encode(*states(*[1] * 32), nowhere(1))), "what comes after step 0 is state 1"
    found = give(STARTS, path, goals, config(worker=WorkerConfig(hindsight=0.0, free=0.25)))  # type: ignore[arg-type]
    assert not found.where.any()
    assert sorted([*found.under.tolist(), *found.alone.tolist()]) == list(range(32))
    assert found.alone.view(4, 2).div(8, rounding_mode="floor").tolist() == [[i, i] for i in range(4)], "two of each eight"
    drawn = {give(STARTS, path, goals, config(worker=WorkerConfig(free=0.25))).alone[0].item() for _ in range(40)}  # type: ignore
    assert drawn == set(range(8)), "whichever"
    sure = config(worker=WorkerConfig(hindsight=0.5), manager=ManagerConfig(likeliest=0.5))
    draws = [vars(give(STARTS, path, goals, sure)).values() for _ in range(20)]  # type: ignore[arg-type]
    found = Given(*map(torch.cat, zip(*draws, strict=True)))
    assert 200 < found.sure.sum() < 440, "half of 640"
    found = give(STARTS, path, goals, config(worker=WorkerConfig(free=0.99)))  # type: ignore[arg-type]
    assert len(found.under) == 4, "one of each, to learn from"
    found = give(STARTS, path, goals, config(worker=WorkerConfig(free=0.01)))  # type: ignore[arg-type]
    assert len(found.alone) == 4


def test_the_manager_learns_nothing_of_goals_that_were_given(monkeypatch: pytest.MonkeyPatch):
    hierarchy = director(period=2, worker=WorkerConfig(hindsight=1.0))
    where = torch.arange(32) % 3 == 0
    told(monkeypatch, hierarchy.goals.prior(32), where)
    asked = []
    teach = hierarchy.manager.learn
    hierarchy.manager.learn = lambda steps, *rest: (asked.append(steps.weight), teach(steps, *rest))[1]  # type: ignore
    learn(hierarchy)
    assert not asked[0][where, 0].any() and asked[0][~where, 0].all()


def test_in_some_rollouts_all_goals_are_the_likeliest_and_teach_the_managers_critics_alone(monkeypatch: pytest.MonkeyPatch):
    hierarchy = director(horizon=4, period=2, worker=WorkerConfig(hindsight=0.0))
    torch.nn.init.normal_(hierarchy.manager.policy.actor.net[-1].weight)  # type: ignore[arg-type]  # it has its likes
    sure = torch.arange(32) % 4 == 0
    told(monkeypatch, hierarchy.goals.prior(32), torch.zeros_like(sure), sure=sure)
    asked = []
    teach = hierarchy.manager.learn
    hierarchy.manager.learn = lambda *given: (asked.append(given), teach(*given))[1]  # type: ignore
    for learning in hierarchy.learn(TwoStates(), STARTS, real()):  # type: ignore[arg-type]
        learning.after()
    steps, *_, own = asked[0]
    z, h = (x[:, :-1].flatten(0, 1) for x in (steps.z, steps.h))
    likeliest, how_likely = hierarchy.manager.policy.act(z, h, greedy=True)
    same = (likeliest.view_as(steps.action) == steps.action).all(-1)
    assert same[sure].all() and not same[~sure].all()
    assert torch.equal(steps.log_prob[sure], how_likely.view_as(steps.log_prob)[sure])
    assert steps.weight[:, 0].all() and not own[sure].any() and own[~sure].all()


def test_an_actor_learns_from_its_own_actions_alone_and_critics_from_all():
    hierarchy = director(horizon=4, period=2, manager=ManagerConfig(novelty=0.0, entropy=0.0, entropy_target=0.0))
    manager, path = hierarchy.manager, trajectory([0, 1, 1], [0, 0]).rows(torch.zeros(6).long())
    z, h = path.z[:, :-1].flatten(0, 1), path.h[:, :-1].flatten(0, 1)
    code, log_prob = manager.policy.act(z, h)
    path = replace(path, action=code.unflatten(0, (6, 2)), log_prob=log_prob.view(6, 2))
    advantage = torch.randn(6, 2)
    assessed = {"extrinsic": Assessment(torch.ones(6, 2), advantage)}

    def gradients(own: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        manager.zero_grad()
        torch.manual_seed(0)
        found = replace(assessed["extrinsic"], advantage=advantage)
        next(manager.learn(path, {"extrinsic": found}, {"extrinsic": 1.0}, "manager", None, own)).loss.backward()
        actor, critic = manager.policy.actor.net[-1].weight.grad, manager.policy.critic.net[-1].weight.grad
        assert isinstance(actor, Tensor) and isinstance(critic, Tensor)
        return actor.clone(), critic.clone()

    own = torch.tensor([True, False] * 3).unsqueeze(1).expand(6, 2)
    actor, critic = gradients(own, advantage)
    others = torch.where(own, advantage, 9.0)
    assert torch.equal(gradients(own, others)[0], actor) and actor.abs().max() > 0
    assert not torch.equal(gradients(torch.ones_like(own), others)[0], actor)
    assert torch.equal(gradients(torch.ones_like(own), advantage)[1], critic)


def test_goals_that_were_given_are_as_likely_as_the_manager_holds_them_for(monkeypatch: pytest.MonkeyPatch):
    hierarchy = director(horizon=4, period=4, worker=WorkerConfig(hindsight=1.0), actor_critic=actor_critic(minibatches=1))
    torch.nn.init.normal_(hierarchy.manager.policy.actor.net[-1].weight)  # type: ignore[arg-type]  # it has its likes
    told(monkeypatch, hierarchy.goals.prior(32), torch.ones(32, dtype=torch.bool))
    lessons = [lesson for lesson in learn(hierarchy) if "manager/kl_approx" in lesson.metrics]
    assert len(lessons) == 1 and lessons[0].metrics["manager/kl_approx"].abs() < 1e-5


def test_how_often_goals_are_reached_is_told_of_the_managers_own(monkeypatch: pytest.MonkeyPatch):
    hierarchy = director(horizon=4, period=4, worker=WorkerConfig(hindsight=1.0))
    where = torch.arange(32) % 2 == 0
    told(monkeypatch, torch.zeros(32, hierarchy.config.goals.groups).long(), where)
    learn(hierarchy)
    reach = hierarchy.told["reach"]
    assert reach.shape == (32,) and reach[where].isnan().all() and reach[~where].isfinite().all()


def test_without_a_goal_an_explorer_acts_and_learns_as_a_flat_policy_does(monkeypatch: pytest.MonkeyPatch):
    hierarchy = director(horizon=4, period=2, worker=WorkerConfig(free=0.5, hindsight=0.0, extrinsic=0.25))
    free = torch.arange(32) % 4 == 0
    told(monkeypatch, hierarchy.goals.prior(32), torch.zeros_like(free), free)
    assert hierarchy.explorer is not None
    taught: dict[str, list[Any]] = {"explorer": [], "worker": [], "manager": []}
    for name, part, method in (
        ("explorer", hierarchy.explorer, "teach"),
        ("worker", hierarchy.worker, "learn"),
        ("manager", hierarchy.manager, "learn"),
    ):
        teach = getattr(part, method)
        kept = lambda *asked, name=name, teach=teach: (taught[name].append(asked), teach(*asked))[1]  # type: ignore[func-returns-value]  # noqa: E731
        monkeypatch.setattr(part, method, kept)
    policy = hierarchy.explorer.policy
    lessons = list(hierarchy.learn(TwoStates(), STARTS, real()))  # type: ignore[arg-type]
    (path, replay), (parts, assessed, weights, _) = taught["explorer"][0], taught["worker"][0]
    assert len(path.action) == 8 and torch.equal(replay.z, real().z)
    own = policy.log_prob(path.z[:, 0], path.h[:, 0], path.action[:, 0])
    torch.testing.assert_close(path.log_prob[:, 0], own)
    assert len(parts.action) == 48 and weights == {"goal": 1.0, "extrinsic": 0.25}, "two segments of each of the others"
    assert {len(found.advantage) for found in assessed.values()} == {48}
    assert len(taught["manager"][0][0].action) == 24 and (taught["manager"][0][0].action >= 0).all()
    assert hierarchy.told["reach"][free].isnan().all() and hierarchy.told["reach"][~free].isfinite().any()
    alone = [lesson for lesson in lessons if "explorer/critic" in lesson.metrics]
    assert len(alone) == 1 and alone[0].after == policy.after_step


def test_episodes_without_a_goal_are_the_explorers():
    hierarchy = director(worker=WorkerConfig(free=0.5))
    assert hierarchy.explorer is not None
    z, h = states(*([0, 1] * 20))
    state = hierarchy.plan(z, h, hierarchy.initial_state(40), torch.ones(40, dtype=torch.bool))
    free = torch.arange(40) % 3 == 0
    state["goal"][free] = NO_GOAL
    torch.nn.init.normal_(hierarchy.explorer.policy.actor.net[-1].weight, std=9.0)  # type: ignore[arg-type]  # it has its likes
    assert hierarchy.practice(state).tolist() == free.tolist()
    action, log_prob = hierarchy.follow(z, h, state, greedy=True)
    own, how_likely = hierarchy.explorer.policy.act(z, h, greedy=True)
    assert torch.equal(action[free], own[free]) and torch.equal(log_prob[free], how_likely[free])
    assert not torch.equal(log_prob[~free], how_likely[~free])
    assert director(worker=WorkerConfig(free=0.0)).explorer is None


def test_in_episodes_the_likeliest_goals_are_chosen_where_they_are_not_to_be_drawn_and_planners_draw_all_the_same():
    z, h = states(*[0] * 50)
    first = torch.ones(50, dtype=torch.bool)
    for sample in (True, False):
        hierarchy = director(manager=ManagerConfig(sample=sample))
        torch.nn.init.normal_(hierarchy.manager.policy.actor.net[-1].weight)  # type: ignore[arg-type]  # it has its likes
        likeliest, _ = hierarchy.manager.policy.act(z, h, greedy=True)
        chosen = hierarchy.plan(z, h, hierarchy.initial_state(50), first)["goal"]
        assert torch.equal(chosen, likeliest) is not sample
        _, _, state = hierarchy.propose(z, h, hierarchy.initial_state(50), first)
        assert not torch.equal(state["goal"], likeliest) and (state["clock"] == hierarchy.period - 1).all()


def test_half_of_the_episodes_that_are_learned_from_are_the_explorers():
    hierarchy = director(worker=WorkerConfig(free=0.5))
    state = hierarchy.exploring_state(400)
    _, state = act(hierarchy, state, *[True] * 400)
    free = (state["goal"] == NO_GOAL).all(-1)
    assert 150 < free.sum() < 250 and torch.equal(hierarchy.practice(state), free)
    for _ in range(3):  # a second goal comes, and the first again
        _, state = act(hierarchy, state, *[False] * 400)
        assert torch.equal((state["goal"] == NO_GOAL).all(-1), free), "an episode stays what it is"
    _, state = act(hierarchy, hierarchy.initial_state(400), *[True] * 400)
    assert (state["goal"] >= 0).all(), "others are played under goals"


def test_a_given_goal_is_what_came_as_many_steps_later_as_a_goal_lasts_or_at_the_end(monkeypatch: pytest.MonkeyPatch):
    goals = director().goals
    path = trajectory([0, 1, 0, 1, 0, 1, 0, 1, 0], [0] * 8).rows(torch.zeros(4).long())
    path.h[..., 0] = torch.arange(9.0)  # by which states are told apart
    path.boundary[:, 6] = True
    asked: list[Tensor] = []

    def encode(z: Tensor, h: Tensor, anchor: Tensor) -> Tensor:
        asked.append(h[..., 0])
        return torch.zeros(*h.shape[:-1], 3, dtype=torch.int64)

    monkeypatch.setattr(goals, "encode", encode)
    starts = SimpleNamespace(step=torch.tensor([[0, 2, 4, 5, 6, 7, 8, 1]] * 4))
    found = give(starts, path, goals, config(period=3, worker=WorkerConfig(hindsight=1.0)))  # type: ignore[arg-type]
    at = starts.step.flatten()[found.under].view(4, 8)
    later, known = asked[0].long(), found.where.view(4, 8)
    expected = {0: 3, 1: 4, 2: 5, 4: 6, 5: 6}  # 6 is an end; after 7 and 8 the sequence is cut off
    for step, where in expected.items():
        assert known[at == step].all() and (later[at == step] == where).all()
    assert not known[at >= 6].any()


def test_a_manager_learns_to_ask_for_what_turned_out_well_and_the_worker_how_to_get_there():
    """By experience alone, in a world where states 0 and 1 come about at random and 1 is paid."""
    manager = ManagerConfig(hindsight=1.0, extrinsic=0.0, novelty=0.0, entropy_target=0.0, entropy=0.0)
    worker = WorkerConfig(imitation=1.0)
    hierarchy = director(goals=replace(GOALS, kl_target=0.2), horizon=2, manager=manager, worker=worker)
    z, later = torch.zeros(64, 1).long(), torch.arange(64).unsqueeze(-1) % 2
    reward = later.float()
    path = trajectory([0, 0, 0], [0, 0]).rows(torch.zeros(64).long())
    action = torch.cat([later, torch.zeros_like(later)], 1)  # as in `TwoStates`: action 1 leads from state 0 to state 1
    path = replace(path, z=torch.stack([z, later, later], 1), action=action, reward=torch.cat([reward, torch.zeros(64, 1)], 1))
    optimizer = torch.optim.Adam([p for p in hierarchy.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(150):
        hierarchy.goals.observe(path.z, path.h, nowhere(*path.z.shape[:2]))
        lessons = [*hierarchy._teach_hindsight(path, path), *hierarchy._teach_goals(path, nowhere(*path.z.shape[:2]))]
        for lesson in lessons:
            optimizer.zero_grad()
            lesson.loss.backward()
            optimizer.step()
    asked, _ = hierarchy.manager.policy.act(*states(*[0] * 64))
    assert hierarchy.goals.encode(*states(0), nowhere(1)).tolist() != hierarchy.goals.encode(*states(1), nowhere(1)).tolist()
    assert (hierarchy.goals.decode(asked, nowhere(len(asked))).groups[:, 0] == 1).float().mean() > 0.8
    for goes in (0, 1):
        state = hierarchy.initial_state(64) | {
            "goal": hierarchy.goals.encode(*states(*[goes] * 64), nowhere(1)),
            "anchor": nowhere(64),
            "clock": torch.full((64,), 1),
        }
        action, _ = hierarchy.follow(*states(*[0] * 64), state)
        assert (action == goes).float().mean() > 0.9, "and the worker to do what leads there"


def test_nothing_of_a_goal_is_worth_anything_once_its_time_is_over():
    hierarchy = director(period=2)
    with torch.no_grad():
        hierarchy.worker.learner("goal").target.net[-1].bias[-1] += 10.0  # type: ignore[index,operator]  # much, by the critic
    assess, found = hierarchy.worker.assess, []
    hierarchy.worker.assess = lambda *asked: (found.append((asked, assess(*asked))), found[-1][1])[1]  # type: ignore
    next(hierarchy.learn(TwoStates(), STARTS, real()))  # type: ignore[arg-type]
    (_, parts, *_), assessed = next(pair for pair in found if pair[0][0] == "goal")
    torch.testing.assert_close(assessed.returns[:, -1], parts.reward[:, -1])
    assert (assessed.returns[:, 0] > 5.0).any(), "before that the critic is asked"


def test_the_managers_goals_are_judged_beside_each_other():
    hierarchy = director(period=2, manager=ManagerConfig(novelty=0.0))
    teach, found = hierarchy.manager.learn, []
    hierarchy.manager.learn = lambda steps, *rest: (found.append((steps, *rest)), teach(steps, *rest))[1]  # type: ignore
    learn(hierarchy)
    steps, assessed, *_ = found[0]
    weight, advantage = steps.weight[:, :-1], assessed["extrinsic"].advantage
    assert abs(float((weight * advantage).sum())) < 1e-4 and advantage[weight > 0].std() > 0.05


def test_ending_an_episode_does_not_cost_what_was_still_to_be_had_of_the_goal():
    hierarchy = director(period=2)
    target, found = hierarchy.worker.learner("goal").target, []
    with torch.no_grad():
        target.net[-1].bias[-1] += 10.0  # type: ignore[index,operator]  # much is still to be had, by the critic
    assess = hierarchy.worker.assess
    hierarchy.worker.assess = lambda name, path, *value: (found.append((name, path)), assess(name, path, *value))[1]  # type: ignore
    lessons = hierarchy.learn(TwoStates(), STARTS, real())  # type: ignore[arg-type]
    next(lessons)
    name, parts = next(pair for pair in found if pair[0] == "goal")
    ends = parts.cont == 0
    value = target(parts.z[:, :-1], parts.h[:, :-1])
    assert ends.any() and name == "goal" and (value > 10.0).all()
    seen = parts.reward[ends] - hierarchy.config.actor_critic.gamma * value[ends]
    assert seen.abs().max() < 1e-4, "that, and not its last step besides"


def test_the_worker_sees_its_goal_where_it_agrees_with_the_state_how_long_it_lasts_and_nothing_of_none():
    hierarchy = director()
    worker, goals = hierarchy.worker, hierarchy.goals
    z, h = states(0, 1)
    goal = goals.decode(goals.prior(2), nowhere(2))
    seen, beside = worker.view(z, h, goal, torch.tensor([2, 0]))
    assert seen[:, 0].tolist() == [0, 1] and seen[:, 1].tolist() == [1, 1] and torch.equal(seen[:, 2:], goal.groups)
    assert torch.equal(beside[:, WIDTH:-3], goals.one_hot(goal.code))
    assert beside[:, -3].tolist() == (goal.groups[:, 0] == z[:, 0]).float().tolist()
    assert beside[:, -2:].tolist() == [[0.0, 1.0], [0.0, 0.0]], "one step left, two, or none"
    seen, beside = worker.view(z, h, goals.decode(torch.full((2, 3), NO_GOAL), nowhere(2)), torch.tensor(1))
    assert seen[:, 1:].tolist() == [[0, 0], [0, 0]] and not beside[:, WIDTH:].any()


def test_the_clock_that_the_worker_sees_is_the_same_in_acting_imagination_and_learning():
    hierarchy = director(horizon=4, period=2, worker=WorkerConfig(imitation=0.0))
    seen: list[list[int]] = []
    view = hierarchy.worker.view
    hierarchy.worker.view = lambda z, h, goal, left: (seen.append(left.flatten().tolist()), view(z, h, goal, left))[1]  # type: ignore
    state = hierarchy.initial_state(1)
    for step in range(4):
        _, state = act(hierarchy, state, step == 0)
    assert seen == [[2], [1], [2], [1]]
    seen.clear()
    learn(hierarchy)
    assert seen == [[2], [1], [2], [1], [2, 1, 0], [2]], "four imagined steps; segments of two and the state after each; the last"


def test_manager_worker_and_goals_each_get_lessons_of_their_own():
    hierarchy = director(actor_critic=actor_critic(minibatches=2), manager=ManagerConfig(novelty=0.1))
    before = {name: p.clone() for name, p in hierarchy.named_parameters()}
    lessons = learn(hierarchy)
    kinds = [
        "worker" if "worker/entropy" in x.metrics else "manager" if "manager/entropy" in x.metrics else "goals" for x in lessons
    ]
    assert kinds == ["worker"] * 2 + ["manager"] * 2 + ["goals"] * 2
    for part in ("goals.encoder", "goals.blocks", "manager.policy.actor", "manager.critics.novelty", "worker.policy.critic"):
        changed = [not torch.equal(p, before[name]) for name, p in hierarchy.named_parameters() if name.startswith(part)]
        assert any(changed), part


def test_what_is_logged_tells_reach_code_use_and_the_share_of_every_reward():
    lessons = learn(director(manager=ManagerConfig(novelty=0.1)))
    worker, manager = lessons[0].metrics, lessons[1].metrics
    assert {f"goal/{name}" for name in ("heard", "told", "untold", "reached", "start", "end", "reward")} <= worker.keys()
    assert 1 <= manager["manager/perplexity"] <= 4
    for metrics, who, rewards in ((worker, "worker", ("goal", "extrinsic")), (manager, "manager", ("extrinsic", "novelty"))):
        for kind in ("return", "advantage"):
            assert sum(float(metrics[f"{who}/{kind}_share/{name}"]) for name in rewards) == pytest.approx(1.0)
    assert all(torch.isfinite(x.loss) and all(torch.isfinite(v).all() for v in x.metrics.values()) for x in lessons)


def test_manager_and_worker_learn_to_end_the_toy_episode_for_its_reward():
    hierarchy = director(worker=WorkerConfig(goal=0.0))
    learn(hierarchy, 60)
    state = hierarchy.initial_state(64)
    z, h = states(*([0, 1] * 32))
    action, _, _ = hierarchy.act(z, h, state, torch.ones(64, dtype=torch.bool))
    assert action.float().mean() > 0.9, "action 1 is right in both states"


def test_a_worker_that_is_paid_by_its_goal_alone_goes_where_it_is_sent():
    """In a world where actions 0 and 1 lead to states 0 and 1 for nothing: only the goal says which. It asks for both."""
    goals, manager = replace(GOALS, kl_target=0.2), ManagerConfig(extrinsic=0.0, novelty=0.0)
    hierarchy = director(goals=goals, manager=manager, worker=WorkerConfig(extrinsic=0.0))
    lessons = learn(hierarchy, 150, Steered())
    z, h = states(0, 1)
    sent = hierarchy.goals.encode(z, h, nowhere(len(z)))
    wanted = hierarchy.goals.decode(sent, nowhere(len(sent))).groups[:, 0]
    assert wanted.tolist() == [0, 1], "the autoencoder tells the states apart"
    for code, goes in zip(sent, (0, 1), strict=True):
        state = {"goal": code.expand(64, -1), "anchor": nowhere(64), "clock": torch.full((64,), 1)}
        action, _ = hierarchy.follow(*states(*([1 - goes] * 64)), state)
        assert (action == goes).float().mean() > 0.9
    last = [x.metrics for x in lessons if "goal/heard" in x.metrics][-1]
    assert last["goal/reached"] > 0.8 and last["goal/heard"] > 0.9


def test_a_worker_that_can_change_nothing_is_not_said_to_listen():
    """The same comes whatever is done, and the manager has learned to ask for that."""
    torch.manual_seed(0)
    hierarchy = director(goals=replace(GOALS, kl_target=0.2), manager=ManagerConfig(extrinsic=0.0, novelty=0.0))
    figures = [x.metrics for x in learn(hierarchy, 150, Fated()) if "goal/reached" in x.metrics][-50:]
    assert mean([x["goal/reached"] for x in figures]) > 0.65, "which would look as if the worker went there"
    assert abs(mean([x["goal/heard"] for x in figures]) - 0.5) < 0.1


def mean(values: list[Any]) -> float:
    return float(torch.stack([torch.as_tensor(value).float() for value in values]).mean())


class Steered(TwoStates):
    """Action a leads to state a, whatever the state; nothing is paid and nothing ends."""

    def after(self, state: Tensor, action: Tensor) -> Tensor:
        return action

    @torch.no_grad()
    def imagine(self, policy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], starts: object = None, nets: object = ()) -> Any:
        N, H = self.rollouts, self.horizon
        state, h = torch.arange(N) % 2, torch.zeros(N, WIDTH)
        found = super().imagine(lambda z, h: (torch.zeros(N).long(), torch.zeros(N)))
        zs, actions, log_probs = [state], [], []
        for _ in range(H):
            action, log_prob = policy(zs[-1].unsqueeze(-1), h)
            zs.append(self.after(zs[-1], action))
            actions.append(action)
            log_probs.append(log_prob)
        nothing, on = torch.zeros(N, H), torch.ones(N, H)
        z, action, log_prob = torch.stack(zs, 1).unsqueeze(-1), torch.stack(actions, 1), torch.stack(log_probs, 1)
        return replace(found, z=z, action=action, log_prob=log_prob, reward=nothing, cont=on)


class Short(TwoStates):
    """Every episode ends with its second step."""

    @torch.no_grad()
    def imagine(self, policy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], starts: object = None, nets: object = ()) -> Any:
        cont = torch.ones(self.rollouts, self.horizon)
        cont[:, 1] = 0
        return replace(super().imagine(policy), cont=cont)


def test_only_goals_that_were_drawn_are_compared_and_where_an_episode_ends_is_part_of_it(monkeypatch: pytest.MonkeyPatch):
    """Of two segments of two steps the first has a last state, the second has none."""
    compared: list[Tensor] = []

    def listen(own: Any, other: Any, weight: Tensor) -> dict[str, Tensor]:
        compared.append(weight.view(32, 2))
        return {}

    monkeypatch.setattr("hierarchy.director.heard", listen)
    hierarchy, none = director(worker=WorkerConfig(free=0.0)), torch.zeros(32, dtype=torch.bool)
    monkeypatch.setattr(hierarchy, "_drawn_beside", lambda path, goal: (goal, torch.ones(goal.code.shape[:2], dtype=torch.bool)))
    code = torch.zeros(32, 3, dtype=torch.int64)
    for world, where, sure in ((Short(), none, ~none), (Short(), ~none, none), (Short(), none, none)):
        told(monkeypatch, code, where, sure=sure)
        learn(hierarchy, world=world)
    likeliest, given, drawn = compared
    assert not likeliest.any() and not given.any()
    assert (drawn[:, 0] == 1).all() and (drawn[:, 1] == 0).all()
    assert torch.isfinite(hierarchy.told["reach"]).all(), "the reach of goals counts the first, too"


def test_to_listen_changes_nothing_that_is_learned(monkeypatch: pytest.MonkeyPatch):
    def learned(deaf: bool) -> list[Tensor]:
        with monkeypatch.context() as patch:
            if deaf:
                everywhere = lambda path, goal: (goal, torch.ones(goal.code.shape[:2], dtype=torch.bool))  # noqa: E731
                patch.setattr(DirectorHierarchy, "_drawn_beside", lambda self, path, goal: everywhere(path, goal))
            hierarchy = director()
            learn(hierarchy, 2)
        return list(hierarchy.state_dict().values())

    assert all(torch.equal(x, y) for x, y in zip(learned(True), learned(False), strict=True))


class Fated(Steered):
    """State 1 comes, and stays, whatever is done."""

    def after(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.ones_like(state)


def test_scales_and_weights_are_part_of_the_state():
    hierarchy = director()
    learn(hierarchy, 2)
    again = director()
    again.load_state_dict(hierarchy.state_dict())
    assert again.worker.policy.scale() == hierarchy.worker.policy.scale()
    weight, same = hierarchy.manager.policy.entropy_weight, again.manager.policy.entropy_weight
    assert weight is not None and same is not None and weight() == same() != 0.01


def test_states_are_worth_what_the_manager_expects_where_its_rewards_are_sums():
    z, h = states(0, 1)
    assert director().value(z, h).shape == (2,)  # type: ignore[union-attr]
    assert director(manager=ManagerConfig(reward="mean")).value(z, h) is None
    learn(director(manager=ManagerConfig(reward="mean", entropy_target=0.0)))


def test_goals_may_hold_signs_of_the_history_which_the_worker_sees_too():
    hierarchy = director(goals=replace(GOALS, history=5))
    z, h = states(0, 1)
    seen, beside = hierarchy.worker.view(z, h, hierarchy.goals.decode(hierarchy.goals.prior(2), nowhere(2)), torch.tensor(2))
    assert seen.shape == (2, 1 + 1 + 1 + 5) and beside.shape == (2, WIDTH + 12 + 6 + 2)
    assert all(torch.isfinite(lesson.loss) for lesson in learn(hierarchy))


class Disputed(TwoStates):
    """The two states, where the model's ensemble disagrees by 1 on every step out of state 0."""

    def imagine(self, *args: Any, **keys: Any) -> Rollout:
        found = super().imagine(*args, **keys)
        return replace(found, disagreement=(found.z[:, :-1, 0] == 0).float())


def test_disagreement_is_a_reward_of_its_own_where_it_is_asked_for():
    hierarchy = director(explore=0.5)
    lessons = learn(hierarchy, 40, Disputed())
    assert "manager/critic/disagreement" in lessons[1].metrics
    certain, disputed = hierarchy.manager.learner("disagreement").critic(*states(1, 0)).tolist()
    assert disputed > 0.5 and abs(certain) < 0.25, "nothing is to be had in state 1, which is never left for state 0"
    plain = director()
    assert "manager/critic/disagreement" not in learn(plain)[1].metrics and "disagreement" not in plain.manager.critics


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a horizon of no whole goals": (dict(horizon=7), r"hierarchy\.horizon=7 has to be a multiple of hierarchy\.period=2"),
    "no period": (dict(period=0), r"hierarchy\.period=0 is too few"),
    "an unknown goal reward": (
        dict(worker=WorkerConfig(reward="love")),
        r"hierarchy\.worker\.reward=love is unknown; choose one of pr",
    ),
    "an unknown sum": (dict(manager=ManagerConfig(reward="max")), r"hierarchy\.manager\.reward=max is unknown"),
    "real rollouts": (dict(real=0.5), r"hierarchy\.real=0\.5 is not for hierarchy=director"),
    "an explorer without a rollout": (dict(starts=1, worker=WorkerConfig(free=0.5)), r"takes hierarchy\.starts=2 or more"),
    "a planner who chooses the kind of episode": (
        dict(plan_training=True, worker=WorkerConfig(free=0.5)),
        r"leaves hierarchy\.worker\.free=0 only",
    ),
    "one class": (dict(goals=GoalConfig(classes=1)), r"hierarchy\.goals\.classes=1 leaves nothing"),
    "a target that is no share": (dict(goals=GoalConfig(kl_target=9.0)), r"hierarchy\.goals\.kl_target=9\.0 is a share"),
    "a negative weight": (dict(worker=WorkerConfig(goal=-1.0)), r"hierarchy\.worker\.goal=-1\.0 is too small"),
    "a share above one": (dict(worker=WorkerConfig(hindsight=1.5)), r"hierarchy\.worker\.hindsight=1\.5 is a share"),
    "a temperature of nothing": (
        dict(manager=ManagerConfig(temperature=0.0)),
        r"hierarchy\.manager\.temperature=0\.0 has to be above",
    ),
    "hindsight without values": (
        dict(manager=ManagerConfig(hindsight=1.0, reward="mean")),
        r"give hierarchy\.manager\.reward=sum, or 0",
    ),
    "imitation without values": (
        dict(manager=ManagerConfig(reward="mean"), worker=WorkerConfig(imitation=0.5)),
        r"hierarchy\.worker\.imitation .* hierarchy\.manager\.reward=sum, or 0",
    ),
    "no floor": (dict(worker=WorkerConfig(goal_floor=0.0)), r"hierarchy\.worker\.goal_floor=0\.0 has to be above 0"),
    "no weight to start from": (dict(manager=ManagerConfig(entropy=0.0)), r"hierarchy\.manager\.entropy=0\.0 has to be above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_do_not_fit_are_refused_by_their_key(case: str):
    changes, message = BAD[case]
    with pytest.raises(UserError, match=message):
        check_director(config(**changes))


def test_the_settings_there_are_by_default_fit():
    check_director(replace(HierarchyConfig(name="director"), horizon=16))
