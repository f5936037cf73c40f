"""`benchmarks.goal_rewards`: the four figures of a goal reward on hand-worked segments, the rule, and what is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from agent.checkpoint import resolve
from agent.jobs import train
from benchmarks import goal_rewards, goal_rewards_measure
from benchmarks.goal_rewards import FIGURES, label, plan, show, summarise
from benchmarks.goal_rewards_measure import arriving, elsewhere, figures_of, measure, rising, seen, segments, sums, table, worth
from benchmarks.harness import Options
from envs.errors import UserError
from hierarchy.config import GoalConfig
from hierarchy.goal import Goal
from hierarchy.goal_rewards import GOAL_REWARDS, GoalView, max_cosine, progress
from hierarchy.goals import GoalSpace
from tests.agent.tiny import DOORKEY, tiny_config
from world_model.latents import LatentBlock, LatentSpec

SETTINGS = {"task": None, "episodes": 3, "others": 2, "resamples": 20, "seed": 5}
LATENTS = LatentSpec((LatentBlock("view", "categorical", (3, 3)),))


def view(goal: tuple[int, int], *states: tuple[tuple[int, int], ...]) -> GoalView:
    """Segments of states under one goal, certain: two groups, either value as usual as the other.

    So `progress` pays a half for a group that comes to agree, and `max_cosine` a half for a group that agrees.
    """
    codes = torch.tensor(states)  # (N, K+1, 2)
    probability = torch.nn.functional.one_hot(torch.tensor(goal), 2).float().expand(len(codes), -1, -1)
    steps = codes.shape[1] - 1
    return GoalView(
        codes, torch.ones_like(codes, dtype=torch.bool), probability, torch.full((2, 2), 0.5), torch.ones(len(codes), steps)
    )


WAY = ((0, 0), (1, 0), (1, 1))
DETOUR = ((0, 0), (1, 1), (1, 0))
EARLY = ((0, 0), (1, 1), (1, 1))


def test_a_segment_is_paid_for_its_own_goal_in_the_units_of_which_others_are_told():
    others = [view((0, 0), WAY), view((1, 0), WAY)]  # one goes away from the one, and comes by the other
    paid = sums(progress, view((1, 1), WAY), others, {1: view((1, 1), EARLY)})
    assert paid.tolist() == [[pytest.approx((-1 + 0) / 2), 1], [1, 1], [0, 1], [1, 1]]
    alike = sums(max_cosine, view((1, 1), WAY), others, {1: view((1, 1), EARLY)})
    assert alike.tolist() == [[(0.5 + 1.5) / 2, 0.5 + 1.0], [1, 1], [1, 2], [(1 + 0.5) / 2, 1]], "a tie counts half"
    assert figures_of(np.array([paid]))[0] == pytest.approx(-0.5)
    assert figures_of(np.array([alike])) == pytest.approx([2 / 3, 1, 0.5, 0.75])


def test_a_reward_rises_as_far_as_it_orders_the_states_of_a_segment():
    assert rising(progress, view((1, 1), WAY)).tolist() == [1], "the sum so far; what a step alone brings is always the same"
    assert rising(max_cosine, view((1, 0), DETOUR)).tolist() == [pytest.approx(2 / 3)], "not the sum, which would always rise"
    assert rising(progress, view((1, 0), DETOUR)).tolist() == [pytest.approx(2 / 3)], "two of three pairs, and a tie"
    assert rising(progress, view((0, 0), WAY, EARLY)).tolist() == pytest.approx([-1, -2 / 3])
    assert rising(max_cosine, view((0, 0), WAY)).tolist() == [-1]


def test_the_way_to_a_goal_is_ordered_though_the_last_step_ends_the_episode():
    ended = replace(view((1, 1), ((0, 0), (1, 1), (1, 0))), cont=torch.tensor([[1.0, 0.0]]))
    assert rising(progress, ended).tolist() == [pytest.approx(2 / 3)], "a loss at the end does not count"


def test_what_ending_costs_is_a_share_of_all_that_staying_pays():
    early = {1: view((1, 1), ((0, 0), (1, 1), (1, 1), (1, 1))), 2: view((1, 1), ((0, 0), (1, 0), (1, 1), (1, 1)))}
    own = view((1, 1), ((0, 0), (1, 0), (1, 1), (1, 1)))
    assert sums(progress, own, [own], early)[2].tolist() == [0, 2]
    assert sums(max_cosine, own, [own], early)[2].tolist() == [2 + 1, 3 + 2.5]


def test_figures_are_of_all_segments_whichever_episode_they_are_of():
    parts = np.array([[[1.0, 4.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]], [[1.0, 6.0], [0.0, 3.0], [0.0, 1.0], [2.0, 3.0]]])
    assert figures_of(parts) == pytest.approx([0.2, 0.25, 0.0, 0.75])
    parts[:, 0, 1] = [1.0, -2.0]
    assert np.isnan(figures_of(parts)[0]), "nothing to be measured by"


def test_a_reward_is_worth_as_much_as_its_worst_figure():
    found = worth(
        np.array([(0.1, 0.8, 0.3, 0.95), (-0.5, 0.9, 0.0, 1.0), (0.0, 0.9, -0.2, 1.0), (0.0, 1.0, 0.0, 0.6), (0, 0.4, 0, 1)])
    )
    assert found == pytest.approx([0.7, 0.5, 0.8, 0.2, 0.4])
    assert worth(np.array([np.nan, 0.9, 0.0, 0.9])) == -1


def test_intervals_are_over_episodes_and_rewards_are_compared_on_the_same_ones():
    """In every episode the second reward rises a little more than the first; episodes differ by far more than that."""
    parts = np.zeros((20, 2, 4, 2))
    parts[..., 1] = 10
    parts[:, :, 3, 0] = 10
    parts[:, 0, 1, 0] = np.linspace(2, 8, 20)
    parts[:, 1, 1, 0] = parts[:, 0, 1, 0] + 0.1
    found = table(["a", "b"], parts, 500, seed=0)
    first, second = (found[name]["rising"] for name in "ab")
    assert first["value"] == pytest.approx(0.5) and second["value"] == pytest.approx(0.51)
    assert 0.4 < first["low"] < 0.45 and 0.55 < first["high"] < 0.6, "0.18 / sqrt(20) twice on either side"
    assert found["a"]["best_in"] == 0 and found["b"]["best_in"] == 1 and found["b"]["worth"] == pytest.approx(0.51)
    assert found["a"]["unrelated"] == {"value": 0, "low": 0, "high": 0} and found["a"]["own"] == 1
    parts[:, 0, 0, 1] = -1
    assert table(["a", "b"], parts, 5, seed=0)["a"]["unrelated"] == {"value": None, "low": None, "high": None}


def test_goals_of_others_are_of_any_other_episode_and_never_of_ones_own():
    codes = torch.arange(6).unsqueeze(1)  # (6, 1), of three episodes
    drawn = elsewhere(codes.split([2, 1, 3]), 400, torch.Generator().manual_seed(0))
    assert [each.shape for each in drawn] == [(400, 2, 1), (400, 1, 1), (400, 3, 1)]
    for found, others in zip(drawn, ([2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 1, 2]), strict=True):
        for segment in found.unbind(1):
            counts = segment.flatten().bincount(minlength=6)
            assert counts.nonzero().flatten().tolist() == others
            assert (counts[others] / 400).tolist() == pytest.approx([1 / len(others)] * len(others), abs=0.1), "all as often"


class Plain(GoalSpace):
    """A code is the state itself, and stands for it for sure."""

    def encode(self, z: Tensor, h: Tensor, anchor: Tensor, greedy: bool = True) -> Tensor:
        return self.codes(z, h, anchor)

    def decode(self, code: Tensor, anchor: Tensor) -> Goal:
        sure = torch.nn.functional.one_hot(code, 3).float()
        return Goal(code, sure, code, torch.ones_like(code, dtype=torch.bool), anchor)


@pytest.fixture
def goals() -> GoalSpace:
    return Plain(LATENTS, 4, GoalConfig(groups=2, classes=3))


def test_segments_begin_everywhere_and_lead_somewhere(goals: GoalSpace):
    z = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [2, 1]])
    h = torch.arange(5.0).unsqueeze(1).expand(-1, 4)
    found = segments(goals, z, h, True, 2)
    assert found.z.tolist() == [z[1:4].tolist(), z[2:].tolist()], "that which comes back to where it began is left out"
    assert found.h[:, :, 0].tolist() == [[1, 2, 3], [2, 3, 4]]
    assert found.cont.tolist() == [[1, 1], [1, 0]]
    assert found.code.tolist() == [[0, 0], [2, 1]], "where they end"
    assert segments(goals, z, h, False, 2).cont.all()
    assert not len(segments(goals, z, h, True, 5).code), "shorter than a goal lasts"


def test_who_arrives_early_stays_there(goals: GoalSpace):
    z = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0], [1, 1], [2, 1]])
    found = segments(goals, z, torch.zeros(6, 4), True, 2)
    early = arriving(goals, found, 1)
    assert early.codes.tolist() == [[[1, 0], [0, 0], [0, 0]], [[0, 0], [1, 1], [1, 1]]], "one is after a step where it was"
    assert early.goal.argmax(-1).tolist() == [[0, 0], [1, 1]]
    assert early.cont.tolist() == [[1, 1], [1, 1]], "staying ends nothing, though going on would have"


def test_segments_are_seen_under_any_goals(goals: GoalSpace):
    found = segments(goals, torch.tensor([[0, 0], [1, 0], [2, 0], [2, 1]]), torch.zeros(4, 4), True, 2)
    for codes in (found.code, found.code.flip(0)):
        view = seen(goals, found, codes)
        assert view.codes.tolist() == found.z.tolist() and view.cont.tolist() == [[1, 1], [1, 0]]
        assert torch.equal(view.goal.argmax(-1), codes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("minigrid", reason="needs the suites extra")
    config = tiny_config(DOORKEY, train=dict(env_steps=48, checkpoint_every=48))
    config.hierarchy = replace(
        config.hierarchy,
        name="director",
        horizon=4,
        period=2,
        goals=GoalConfig(groups=3, classes=4, hidden=16, symbol_width=4, cell_width=4),
    )
    config.eval.episodes, config.eval.calibration, config.eval.goal_episodes = 1, 0, 0
    folder = tmp_path_factory.mktemp("goal_rewards") / "director_seed1_0123456789ab"
    train(config, folder)
    return folder


def test_a_run_is_measured_on_its_hardest_task_and_all_rewards_are_told(run: Path):
    found = measure(resolve(run), SETTINGS)
    assert (found["task"], found["env_steps"], found["period"], found["episodes"]) == ("DoorKey-6x6", 48, 2, 3)
    assert found["segments"] + found["left_out"] <= 3 * 19 and found["segments"] > 3, "episodes of up to 20 steps"
    assert list(found["rewards"]) == list(GOAL_REWARDS)
    for figures in found["rewards"].values():
        assert 0 <= figures["telling"]["low"] <= figures["telling"]["high"] <= 1 and -1 <= figures["rising"]["value"] <= 1
    assert found["rewards"]["max_cosine"]["unrelated"]["value"] > 0.5, "Director's pays for any goal"
    assert sum(figures["best_in"] for figures in found["rewards"].values()) == pytest.approx(1)
    json.dumps(found, allow_nan=False)
    assert measure(resolve(run), SETTINGS) == found, "the same again"
    assert measure(resolve(run), {**SETTINGS, "task": "DoorKey-5x5"})["task"] == "DoorKey-5x5"


def test_what_cannot_be_measured_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"--task CartPole-v1 is none of the run's: choose one of DoorKey-5x5, DoorKey-6x6"):
        measure(resolve(run), {**SETTINGS, "task": "CartPole-v1"})
    loaded = goal_rewards_measure.load_agent(run, "cpu")
    loaded.hierarchy.period = 1  # type: ignore[assignment]
    monkeypatch.setattr(goal_rewards_measure, "load_agent", lambda path, device: loaded)
    with pytest.raises(UserError, match="goals of a single step"):
        measure(resolve(run), SETTINGS)
    loaded.hierarchy.period = 1000  # type: ignore[assignment]
    with pytest.raises(UserError, match="0 of 3 episodes of DoorKey-6x6 led anywhere in 1000 steps"):
        measure(resolve(run), SETTINGS)
    monkeypatch.setattr(goal_rewards_measure, "load_agent", lambda path, device: SimpleNamespace(hierarchy=None))
    with pytest.raises(UserError, match="give a run of hierarchy=director"):
        measure(resolve(run), SETTINGS)


def test_a_run_is_called_as_its_folder_and_known_by_its_config(run: Path):
    (planned,) = plan(Options(arguments={"runs": [str(run)]}))
    assert (planned.variant, planned.seed) == ("director", 1)
    assert planned.config["run"]["env_steps"] == 48 and planned.config["run"]["hierarchy"]["period"] == 2
    assert planned.config["measure"] == {"task": None, "episodes": 50, "others": 8, "resamples": 2000}
    (named,) = plan(Options(quick=True, arguments={"runs": [str(resolve(run))], "episodes": 3, "task": "DoorKey-5x5"}))
    assert named.variant == "director" and named.config["measure"]["episodes"] == 3
    (tried,) = plan(Options(quick=True))
    assert tried.config["train"]["hierarchy"]["name"] == "director" and tried.config["measure"]["episodes"] == 4
    assert label(Path("copies/step_000015008")) == "step_000015008"


def test_no_runs_no_checkpoint_and_a_single_episode_are_refused(tmp_path: Path):
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "--runs is missing"),
        ({"runs": ["x"], "episodes": 1}, "--episodes 1 is too few"),
        ({"runs": ["x"], "episodes": 0}, "--episodes 0 is too few"),
        ({"runs": [str(tmp_path)]}, "not a Strata checkpoint"),
    ]
    for asked, said in refused:
        with pytest.raises(UserError, match=said):
            plan(Options(arguments=asked))


def record(seed: int, worths: dict[str, float], error: str | None = None) -> dict[str, Any]:
    figures = {name: {"value": -0.004, "low": -0.12, "high": -0.11} for name in FIGURES}
    rewards: dict[str, Any] = {name: {**figures, "worth": value, "best_in": 1.0, "own": 1.0} for name, value in worths.items()}
    if rewards:
        rewards["cosine"] |= {"unrelated": {"value": None, "low": None, "high": None}}
    found = {"task": "MultiRoom-N6", "env_steps": 300000, "split": "test", "period": 4, "episodes": 50, "segments": 4000}
    return {"variant": "director", "seed": seed, "error": error, "figures": None if error else {**found, "rewards": rewards}}


def test_the_best_reward_is_best_on_average_over_runs_and_the_table_is_eighty_columns_wide():
    records = [
        record(1, {"max_cosine": 0.5, "cosine": 0.3}),
        record(2, {"max_cosine": 0.1, "cosine": 0.4}),
        record(3, {}, "it broke"),
    ]
    result = summarise(Options(), records)
    assert result["best"] == "cosine" and result["worth"] == pytest.approx({"max_cosine": 0.3, "cosine": 0.35})
    json.dumps(result, allow_nan=False)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(show(result))
    text = console.export_text()
    for shown in ("max_cosine", "-0.12, -0.11", "0.00", "100%", "4,000 segments of 50 test episodes", "Best: cosine",
                  "director seed 3 failed: it broke"):  # fmt: skip
        assert shown in text
    assert "…" not in text and "-0.00" not in text
    assert summarise(Options(), records[2:]) | {"runs": 0} == {"runs": 0, "worth": {}, "best": None}
    assert goal_rewards.BENCHMARK.parse(["--runs", "x", "--episodes", "7"]).arguments["episodes"] == 7
