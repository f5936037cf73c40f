"""Planning at decision time: what plans are worth, whom they disturb, and that they find what the policy does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.agent import Agent, AgentState
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from hierarchy import Hierarchy, HierarchyConfig, make_hierarchy
from hierarchy.base import PolicyState
from hierarchy.config import GoalConfig
from hierarchy.planner import Planner, make_planner, plan_scores
from tests.hierarchy.toy import actor_critic
from tests.world_model.conftest import SPEC, random_observations, tiny_config
from world_model.embedding import Lasting
from world_model.imagination import ImaginationEnv
from world_model.mapping import Recalled
from world_model.model import NOTHING, WorldModel

CPU = torch.device("cpu")
WINDOW = tiny_config().window
ACTIONS = (ActionSpec("discrete", 5), ActionSpec("multi_discrete", 2, classes=(3, 2)), ActionSpec("box", 2))


def settings(planner: str = "actions", **keys: Any) -> HierarchyConfig:
    parts: dict[str, Any] = dict(planner=planner, candidates=4, plan_horizon=3, actor_critic=actor_critic())
    return HierarchyConfig(**(parts | keys))


def agent_of(config: HierarchyConfig, actions: ActionSpec = SPEC.action) -> Agent:
    """Weights are random, those that begin at zero too: else every plan would be worth the same."""
    torch.manual_seed(0)
    model = WorldModel(EnvSpec(SPEC.observations, actions), tiny_config()).eval()
    hierarchy = make_hierarchy(config, model.latents, model.view_width, actions)
    for module in (model.reward_head, model.continue_head, hierarchy):
        for parameter in module.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
    return Agent(model, hierarchy, CPU, make_planner(hierarchy, model, config))


def play(agent: Agent, steps: int, mode: str = "sample", seed: int = 1, plan: bool = True) -> tuple[list[Any], AgentState]:
    """Three environments; the second one's episode begins anew after four steps."""
    torch.manual_seed(seed)
    state, taken = agent.initial_state(3), []
    for t in range(steps):
        first = np.array([t == 0, t in (0, 4), t == 0])
        action, log_prob, state = agent.act(random_observations((3,), seed=t), first, state, mode, plan=plan)
        taken.append((action, log_prob))
    return taken, state


def test_a_plan_is_worth_its_discounted_rewards_while_alive_and_the_value_at_its_end():
    """1 + 0.5 * 0.8 * 2 + 0.25 * 0.8 * 0.5 * 10 = 2.8; a plan that surely ends at once keeps its first reward alone."""
    reward = torch.tensor([[1.0, 2.0], [3.0, 9.0]])
    cont = torch.tensor([[0.8, 0.5], [0.0, 1.0]])
    scores = plan_scores(reward, cont, torch.tensor([10.0, 10.0]), gamma=0.5)
    assert scores.tolist() == pytest.approx([2.8, 3.0])


class Uniform(Hierarchy):
    """Draws one of two actions, and counts its decisions; where `goals`, every third one chooses a goal."""

    def __init__(self, goals: bool = False) -> None:
        super().__init__()
        self.goals, self.asked = goals, list[int]()

    def initial_state(self, batch: int) -> PolicyState:
        return {"clock": torch.zeros(batch, dtype=torch.int64), "goal": torch.zeros(batch, 2)}

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return (first | (state["clock"] % 3 == 0)) & torch.tensor(self.goals)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        self.asked.append(len(z))
        clock = torch.where(first, 0, state["clock"])
        goal = torch.where((first | (clock % 3 == 0)).unsqueeze(-1), torch.rand(len(z), 2), state["goal"])
        return {"clock": clock + 1, "goal": goal}

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Greedy actions are told by the goal."""
        action = (state["goal"][:, 0] > 0.5).long() if greedy else torch.randint(2, (len(z),))
        return action, torch.full((len(z),), -0.69)


class Corridor(WorldModel):
    """A world of places 0 .. 7: action 1 leads one place on, action 0 stays; place 7 pays 1 and ends the episode.

    Only the next place, the reward and the end are made by hand; keys, values and windows are those of the real model.
    """

    def __init__(self) -> None:
        spec = EnvSpec((ModalitySpec("place", "categorical", (1,), "int64", classes=(8,)),), ActionSpec("discrete", 2))
        super().__init__(spec, tiny_config())
        self._action, self._steps = torch.zeros(0), list[Tensor]()

    def embed(self, z: Tensor, action: Tensor, lasting: Lasting | None = None) -> Tensor:
        self._action = action
        return super().embed(z, action, lasting)

    def sample_next(self, h: Tensor, z: Tensor, noise: Tensor | None, recalled: Recalled = NOTHING) -> Tensor:
        place = (z + self._action.unsqueeze(-1)).clamp(max=7)
        self._steps.append(((place == 7) & (z != 7)).squeeze(-1).float())
        return place

    def imagined(self) -> Tensor:
        """(N, H), 1 on arriving at place 7."""
        return torch.stack(self._steps, 1)

    def reward(self, h: Tensor) -> Tensor:
        return self.imagined()

    def cont(self, h: Tensor) -> Tensor:
        return 1 - self.imagined()


class Sight(Corridor):
    """The same corridor, where arriving at place 7 pays nothing and shows something new."""

    def reward(self, h: Tensor) -> Tensor:
        return torch.zeros_like(self.imagined())

    def discovered(self, recalled: Recalled, z: Tensor) -> Tensor:
        return (z == 7).squeeze(-1).float()


class Obedient(Uniform):
    """Goes where its goal says, until the next one."""

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return super().follow(z, h, state, greedy=True)


def walk(
    planner: str, candidates: int, start: int, steps: int, seed: int = 0, world: type[Corridor] = Corridor, **keys: Any
) -> np.ndarray:
    """The places of 40 walkers after `steps` decisions of a uniform policy with a planner."""
    torch.manual_seed(seed)
    model, hierarchy = world().eval(), Uniform()
    config = settings(planner, candidates=candidates, plan_horizon=4, **keys)
    agent = Agent(model, hierarchy, CPU, make_planner(hierarchy, model, config))
    place, state = np.full((40, 1), start), agent.initial_state(40)
    for t in range(steps):
        model._steps = []
        action, _, state = agent.act({"place": place}, np.full(40, t == 0), state)
        place = np.minimum(place + action[:, None], 7)
    return place[:, 0]


def test_a_planner_finds_the_way_to_a_reward_although_its_policy_is_uniform():
    plain, planned = (walk(*kind, start=4, steps=3) for kind in (("none", 1), ("actions", 32)))
    assert (plain == 7).mean() < 0.3, "one in eight"
    assert (planned == 7).mean() > 0.9


def test_what_is_news_on_the_way_counts_as_it_does_in_what_is_learned():
    told, untold = (walk("actions", 32, start=4, steps=3, world=Sight, discovery=share) for share in (0.5, 0.0))
    assert (told == 7).mean() > 0.9
    assert (untold == 7).mean() < 0.3


def test_more_candidates_find_it_more_often_and_beyond_the_horizon_none_does():
    share = [(walk("actions", candidates, start=4, steps=3) == 7).mean() for candidates in (1, 4, 32)]
    assert share[0] < share[1] < share[2]
    assert 0.3 < (walk("actions", 32, start=0, steps=1) == 1).mean() < 0.7, "the reward is seven steps away, the horizon is four"


@pytest.mark.parametrize("actions", ACTIONS, ids=lambda actions: actions.kind)
def test_it_takes_the_first_action_of_the_best_candidate_whatever_the_kind_of_action(actions: ActionSpec):
    agent = agent_of(settings(candidates=9), actions)
    planner = agent.planner
    assert planner is not None
    found: dict[str, Any] = {}
    imagine = ImaginationEnv.imagine

    def watched(self: ImaginationEnv, policy: Any, starts: Any) -> Any:
        found["rollout"] = imagine(self, policy, starts)
        return found["rollout"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImaginationEnv, "imagine", watched)
        ((action, log_prob),), _ = play(agent, 1)
    rollout = found["rollout"]
    value = agent.hierarchy.value(rollout.z[:, -1], rollout.h[:, -1])
    assert value is not None
    best = plan_scores(rollout.reward, rollout.cont, value, 0.985).view(3, 9).argmax(1)
    assert len(set(best.tolist())) > 1, "not always the same candidate"
    for i, k in enumerate(best.tolist()):
        assert np.array_equal(action[i], rollout.action[9 * i + k, 0].numpy())
        assert log_prob[i] == pytest.approx(rollout.log_prob[9 * i + k, 0].item())
    assert action.shape == (3, *actions.shape)


@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_one_candidate_is_the_policy_itself(mode: str):
    agent = agent_of(settings(candidates=1))
    for t in range(3):  # imagination draws, too: only what follows the same draws can be compared
        (planned,), _ = play(agent, 1, mode, seed=t)
        (plain,), _ = play(agent, 1, mode, seed=t, plan=False)
        assert all(np.array_equal(a, b) for a, b in zip(planned, plain, strict=True))


def test_one_candidate_is_drawn_as_the_policy_draws():
    """1,024 decisions of each on one observation; their shares differ by chance alone, at most by 4 standard deviations."""
    agent = agent_of(settings(candidates=1, plan_horizon=1))
    obs = {key: np.repeat(x, 1024, 0) for key, x in random_observations((1,)).items()}
    first, state = np.ones(1024, bool), agent.initial_state(1024)
    torch.manual_seed(0)
    planned, plain = (agent.act(obs, first, state, plan=plan)[0] for plan in (True, False))
    shares = [np.bincount(action, minlength=5) / 1024 for action in (planned, plain)]
    assert np.abs(shares[0] - shares[1]).max() < 4 * (2 * 0.25 / 1024) ** 0.5
    assert shares[1].max() < 0.9, "there is something to draw"


def test_planning_leaves_the_cache_of_acting_and_the_models_weights_as_they_are():
    agent = agent_of(settings())
    assert agent.planner is not None
    _, state = play(agent, WINDOW + 3)
    cache = state.cache
    before = [x.clone() for x in (cache.keys, cache.values, cache.position)]
    weights = {name: value.clone() for name, value in agent.model.state_dict().items()}
    z = torch.zeros(3, agent.model.latents.groups, dtype=torch.int64)
    agent.planner.act(cache, z, state.h, state.policy, torch.zeros(3, dtype=torch.bool))
    assert all(torch.equal(x, y) for x, y in zip((cache.keys, cache.values, cache.position), before, strict=True))
    assert all(torch.equal(value, weights[name]) for name, value in agent.model.state_dict().items())


def test_after_the_same_actions_the_agent_remembers_the_same_whoever_decided():
    """Over the start of an episode and past the window, where the ring has turned over."""
    agent = agent_of(settings())
    taken, planned = play(agent, WINDOW + 6)
    forced = iter([action for action, _ in taken])

    def act(z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> Any:
        return torch.from_numpy(next(forced)), torch.zeros(len(z)), state

    agent.hierarchy.act = act  # type: ignore[method-assign]
    _, plain = play(agent, WINDOW + 6, plan=False)
    assert torch.equal(planned.h, plain.h) and torch.equal(planned.cache.position, plain.cache.position)
    assert planned.cache.position.tolist() == [WINDOW + 6, WINDOW + 2, WINDOW + 6]
    assert torch.equal(planned.cache.keys, plain.cache.keys)


def test_a_seed_decides_what_is_planned():
    agent = agent_of(settings())

    def actions(seed: int) -> list[Any]:
        return [action.tolist() for action, _ in play(agent, WINDOW + 6, seed=seed)[0]]

    assert actions(1) == actions(1) != actions(2)


def test_without_a_planner_the_policy_decides_with_the_random_numbers_it_always_drew():
    agent = agent_of(settings("none"))
    assert agent.planner is None
    obs, first, state = random_observations((3,)), np.ones(3, bool), agent.initial_state(3)
    torch.manual_seed(3)
    action, log_prob, _ = agent.act(obs, first, state)
    torch.manual_seed(3)
    z, _ = agent.model.posterior(agent.model.tokenize(obs))
    expected = agent.hierarchy.act(z, agent.model.view(z, state.h, state.cache.maps), {}, torch.ones(3, dtype=torch.bool))
    assert np.array_equal(action, expected[0].numpy()) and np.array_equal(log_prob, expected[1].numpy())


def test_uniform_actions_are_planned_by_nobody():
    agent = agent_of(settings())
    (planned,), _ = play(agent, 1, "random")
    (plain,), _ = play(agent, 1, "random", plan=False)
    assert np.array_equal(planned[0], plain[0])


def test_goals_are_planned_only_where_one_is_chosen_and_kept_till_the_next():
    torch.manual_seed(0)
    model, hierarchy = Corridor().eval(), Uniform(goals=True)
    planner = make_planner(hierarchy, model, settings("goals", candidates=4, plan_horizon=2))
    agent, place = Agent(model, hierarchy, CPU, planner), np.zeros((3, 1), np.int64)
    state, goals, asked = agent.initial_state(3), [], []
    for t in range(5):
        model._steps, hierarchy.asked = [], []
        first = np.array([t == 0, t == 0, t in (0, 1)])  # the third one's episode begins anew at step 1
        _, _, state = agent.act({"place": place}, first, state)
        goals.append(state.policy["goal"].clone())
        asked.append(hierarchy.asked)
    # The policy for all three, then for four candidates of each that decides, over two imagined steps.
    assert asked == [[3, 12, 12], [3, 4, 4], [3], [3, 8, 8], [3, 4, 4]]
    changed = [[not torch.equal(goals[t][i], goals[t + 1][i]) for i in range(3)] for t in range(4)]
    assert changed == [[False, False, True], [False, False, False], [True, True, False], [False, False, True]]


def test_the_goal_is_taken_whose_imagined_way_leads_to_the_reward():
    torch.manual_seed(0)
    model, hierarchy = Corridor().eval(), Obedient(goals=True)
    arrived = {}
    for candidates in (1, 8):
        planner = make_planner(hierarchy, model, settings("goals", candidates=candidates, plan_horizon=4))
        agent, place = Agent(model, hierarchy, CPU, planner), np.full((40, 1), 4)
        state = agent.initial_state(40)
        for t in range(3):  # as long as a goal lasts, and as the way is
            model._steps = []
            action, _, state = agent.act({"place": place}, np.full(40, t == 0), state)
            place = np.minimum(place + action[:, None], 7)
        arrived[candidates] = (place == 7).mean()
        assert ((state.policy["goal"][:, 0] > 0.5).numpy() == (place[:, 0] == 7)).all(), "its goal alone decided it"
    assert 0.25 < arrived[1] < 0.75 and arrived[8] > 0.9, "one goal in two leads there"


@pytest.mark.parametrize("planner", ["goals", "actions"])
def test_the_director_is_planned_for_with_a_clock_that_goes_on_as_without(planner: str):
    keys: dict[str, Any] = dict(name="director", period=2, horizon=4, goals=GoalConfig(groups=2, classes=3, hidden=16))
    agent = agent_of(settings(planner, **keys))
    taken, state = play(agent, 5)
    assert state.policy["clock"].tolist() == play(agent, 5, plan=False)[1].policy["clock"].tolist()
    assert state.policy["goal"].shape == (3, 2) and all(np.isfinite(log_prob).all() for _, log_prob in taken)
    assert [action.tolist() for action, _ in taken] == [action.tolist() for action, _ in play(agent, 5)[0]]


def test_the_greedy_action_is_that_of_the_goal_which_was_taken():
    torch.manual_seed(0)
    model, hierarchy = Corridor().eval(), Uniform(goals=True)
    agent = Agent(model, hierarchy, CPU, make_planner(hierarchy, model, settings("goals", plan_horizon=4)))
    model._steps = []
    action, _, state = agent.act({"place": np.full((40, 1), 4)}, np.ones(40, bool), agent.initial_state(40), "greedy")
    assert action.tolist() == (state.policy["goal"][:, 0] > 0.5).tolist()


def test_a_hierarchy_without_values_is_planned_for_by_its_rewards_alone():
    assert Uniform().value(torch.zeros(1, 1), torch.zeros(1, 4)) is None
    assert (walk("actions", 32, start=6, steps=1) == 7).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(planner="tree"), r"hierarchy\.planner=tree is unknown; choose one of none, actions, goals"),
        (dict(planner="goals"), r"hierarchy\.planner=goals needs goals, which hierarchy=flat has not"),
        (dict(candidates=0), r"hierarchy\.candidates=0 is too small: give 1 or more"),
        (dict(plan_horizon=0), r"hierarchy\.plan_horizon=0 is too small: give 1 or more"),
        (dict(plan_training=True, real=0.5), r"hierarchy\.plan_training=true leaves hierarchy\.real=0 only"),
    ],
)
def test_a_planner_that_cannot_plan_is_refused_in_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        agent_of(settings(**changes))


def test_planners_are_kept_apart_from_what_is_saved_and_trained():
    agent = agent_of(settings())
    assert isinstance(agent.planner, Planner) and not isinstance(agent.planner, torch.nn.Module)
