"""docs/hierarchy.md: what it names is there, and a third hierarchy is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from agent.agent import Agent
from agent.config import RunConfig
from envs.errors import UserError
from envs.spaces.specs import ActionSpec
from hierarchy import HIERARCHIES, Hierarchy, make_hierarchy
from hierarchy.base import PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.goal_rewards import GOAL_REWARDS
from hierarchy.planner import Planner
from hierarchy.swapped import SwappedGoals
from tests.world_model.conftest import SPEC, random_observations, tiny_config
from world_model.latents import LatentSpec
from world_model.model import WorldModel

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "hierarchy.md").read_text(encoding="utf-8")


def test_the_files_it_names_are_there():
    table = PAGE.split("## The parts")[1].split("**Goals**")[0]
    files = re.findall(r"`(\w+\.py)`", table)
    assert len(files) > 9 and all((ROOT / "hierarchy" / name).is_file() for name in files)


def test_its_table_of_goal_rewards_is_the_registry():
    table = PAGE.split("## Goal rewards")[1].split("The similarity")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(GOAL_REWARDS)


def test_the_keys_it_names_exist():
    for group, key in re.findall(r"`(?:hierarchy\.)?(goals|manager|worker)\.(?!py\b)(\w+)", PAGE):
        assert hasattr(getattr(RunConfig().hierarchy, group), key), f"hierarchy.{group}.{key}"
    for key in re.findall(r"eval\.(\w+)", PAGE):
        assert hasattr(RunConfig().eval, key), f"eval.{key}"


class Coin(Hierarchy):
    """A third one: a goal is one of two sides, drawn anew at every other step, and the action is the goal."""

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, config: HierarchyConfig) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch: int) -> PolicyState:
        return {"goal": torch.zeros(batch, 1, dtype=torch.int64), "left": torch.zeros(batch, dtype=torch.int64)}

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return first | (state["left"] == 0)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        new = self.decides(state, first)
        goal = torch.where(new.unsqueeze(-1), torch.randint(2, (len(z), 1)), state["goal"])
        return {"goal": goal, "left": torch.where(new, 2, state["left"]) - 1}

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return state["goal"][:, 0].clamp(min=0), torch.zeros(len(z))


def test_a_third_hierarchy_acts_plans_and_has_its_goals_swapped_by_giving_what_the_page_lists():
    assert {"flat", "director"} <= set(HIERARCHIES)
    model = WorldModel(SPEC, tiny_config()).eval()
    config = HierarchyConfig(name=f"{__name__}.Coin", planner="goals", candidates=3, plan_horizon=2)
    coin = make_hierarchy(config, model.latents, model.view_width, SPEC.action)
    assert isinstance(coin, Coin)
    planner, obs = Planner(coin, model, config), random_observations((4,))
    first = torch.ones(4, dtype=torch.bool).numpy()
    for agent in (
        Agent(model, coin, torch.device("cpu")),
        Agent(model, coin, torch.device("cpu"), planner),
        Agent(model, SwappedGoals(coin, "zeroed"), torch.device("cpu")),
    ):
        action, _, state = agent.act(obs, first, agent.initial_state(4))
        again, _, state = agent.act(obs, ~first, state)
        assert action.tolist() == again.tolist(), "a goal lasts for two steps"
    assert action.tolist() == [0] * 4, "without a goal"


BAD = {
    "hierarchy.director.Nobody": r"hierarchy\.name 'hierarchy\.director\.Nobody' cannot be imported",
    "nowhere.Boss": r"cannot be imported \(No module named 'nowhere'\); choose one of flat, director, or give",
    "pathlib.Path": r"hierarchy\.name 'pathlib\.Path' is no subclass of hierarchy\.base\.Hierarchy",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_hierarchy_is_refused_with_the_way_out(name: str):
    model = WorldModel(SPEC, tiny_config())
    with pytest.raises(UserError, match=BAD[name]):
        make_hierarchy(HierarchyConfig(name=name), model.latents, model.view_width, SPEC.action)
