"""`job=plan`: bytes per rank by hand, and activations against those that autograd really keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from agent import jobs
from agent.config import JobConfig, PlanConfig, RunConfig
from agent.plan.budget import Budget, acting_bytes, budgets, imagination_bytes, share_of_batch, smallest
from agent.plan.job import env_spec
from agent.plan.trace import SavedBytes, Trace, on_shapes, trace
from envs.errors import UserError
from tests.agent.tiny import CARTPOLE, DOORKEY, tiny_config
from tests.test_configs import composed
from world_model.memory import TrainingMemory

SIZES = dict(frozen=8, policy=100, activations=5000, policy_activations=7, cache_element=4, maps=11, groups=3, view=32)
FOUND = Trace(4, (1000, 24), (True, False), **SIZES)


def test_imagination_and_acting_by_hand():
    config = tiny_config(CARTPOLE)  # 4 x 8 steps, 2 starts, horizon 3, one layer of width 32, window 8, 4 environments
    caches = 2 * 4 * (8 + (8 + 2 * 3)) * 32 * 4
    mask = 3 * 4 * 2 * (8 + 2 * 3)
    rollout = 2 * (3 + 1) * 8 * (3 * 8 + 32 * 4)
    maps = 11 * (4 * 8 + 2 * 8)
    assert imagination_bytes(config, FOUND) == maps + caches + mask + rollout + 7
    assert acting_bytes(config, FOUND) == 2 * 4 * 8 * 32 * 4 + 4 * 11


def test_the_most_at_once_counts_either_the_backward_pass_or_imagination():
    state = TrainingMemory(10, 20, 30, buckets=3, copy=2)
    budget = Budget(1, 2, state, frozen=4, policy=5, activations=100, imagination=70, acting=1)
    assert budget.total == 10 + 20 + 30 + 3 + 2 + 4 + 5 + 1 + 100
    assert replace(budget, imagination=300).total == 75 + 300
    assert replace(budget, model=replace(state, offloaded=30)).total == budget.total - 30
    assert not budget.to_dict(174)["fits"] and budget.to_dict(175)["fits"]


def test_the_smallest_that_fits_has_the_fewest_ranks_then_the_lowest_stage():
    config = tiny_config(CARTPOLE)
    found = budgets(config, dict.fromkeys((4, 1, 2), FOUND))
    assert [(budget.ranks, budget.stage) for budget in found[:4]] == [(4, 0), (4, 1), (4, 2), (4, 3)]
    rest = 8 + 100 + max(5000 + 2 * 11 * 4 * 8, imagination_bytes(config, FOUND)) + acting_bytes(config, FOUND)
    assert found[0].total == 16 * 1024 + rest  # weights, gradients, two moments
    totals = {(budget.ranks, budget.stage): budget.total for budget in found}
    chosen = smallest(found, totals[2, 1])
    assert chosen is not None and (chosen.ranks, chosen.stage) == (2, 1)
    assert smallest(found, 100) is None


@pytest.mark.parametrize(("ranks", "share"), [(1, 16), (2, 8), (3, 6), (16, 1)])
def test_the_batch_is_shared_out(ranks: int, share: int):
    config = tiny_config(CARTPOLE, train={"batch": 16})
    assert share_of_batch(config, ranks) == share


def test_only_what_the_backward_pass_needs_is_counted_and_once():
    linear = nn.Linear(8, 4)
    count, x = SavedBytes(linear), torch.zeros(16, 8)
    with count.watch():
        (linear(x).exp() + linear(x)).sum()
    assert count.total == 16 * 8 * 4 + 16 * 4 * 4  # the input, shared, and the result of exp


def test_on_shapes_no_memory_is_taken():
    with on_shapes():
        huge = nn.Linear(1 << 14, 1 << 10)
        assert huge(torch.zeros(1, 1 << 14)).shape == (1, 1 << 10)
    assert type(nn.Linear(2, 2).weight.data) is torch.Tensor


@pytest.mark.parametrize("given", [["model=debug", "hierarchy=director"], ["model=xs", "sharding.tensor_parallel=2"], ["model=s"],
                                   ["model=debug", "experiment=pendulum", "model.precision=bf16"]], ids=",".join)  # fmt: skip
def test_traced_bytes_are_those_that_autograd_keeps(given: list[str]):
    config = composed(*given)
    spec = env_spec(config)
    (planned,), (measured,) = trace(config, spec, [4]), trace(config, spec, [4], shapes_only=False)
    assert planned.activations == pytest.approx(measured.activations, rel=0.01)
    assert replace(planned, activations=0) == replace(measured, activations=0)


def planned(config: RunConfig, folder: Path, **keys: object) -> float:
    config.job, config.plan = JobConfig("plan"), PlanConfig(**keys)  # type: ignore[arg-type]
    return jobs.run_job(config, folder)


def test_a_plan_is_a_table_and_one_json_object_and_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    total = planned(tiny_config(DOORKEY), tmp_path / "run", world_sizes=[1, 2], json=str(tmp_path / "plan.json"))
    out = capsys.readouterr().out
    assert "Smallest that fits into plan.memory_gib=24: 1 rank(s) at stage 0" in out
    data = json.loads((tmp_path / "plan.json").read_text())
    assert [(row["ranks"], row["stage"]) for row in data["rows"]] == [(n, stage) for n in (1, 2) for stage in range(4)]
    assert data["smallest"] == {"stage": 0, "ranks": 1, "total": total} and data["rows"][0]["total"] == total
    assert data["replay"] == 4000 * (147 + 8 + 96 + 35), "grid, direction, mission, the rest"
    assert not (tmp_path / "run").exists()


def test_a_plan_says_what_a_run_on_so_many_ranks_would_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tiny_config(DOORKEY)
    config.train.batch, config.train.random_steps = 4, 1000
    planned(config, tmp_path, world_sizes=[1, 3], json=str(tmp_path / "plan.json"))
    assert "A run refuses 3 ranks: train.batch=4 is shared out over 3 processes" in " ".join(capsys.readouterr().out.split())
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert all((row["refused"] is None) == (row["ranks"] == 1) for row in rows)
    config.train.random_steps = 100
    planned(config, tmp_path, world_sizes=[1, 4])
    assert "A run refuses 4 ranks: train.random_steps=100 is too few" in " ".join(capsys.readouterr().out.split())


def test_a_plan_with_tensor_parallelism_is_of_whole_groups_and_shares_out_the_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny_config(DOORKEY)
    config.sharding.tensor_parallel = 2
    planned(config, tmp_path, world_sizes=[1, 2, 4], json=str(tmp_path / "plan.json"))
    out = capsys.readouterr().out
    assert "Not planned: ranks 1, no multiples of" in out and "Not planned: stage 3" in out
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert [(row["ranks"], row["stage"]) for row in rows] == [(n, stage) for n in (2, 4) for stage in range(3)]
    planned(tiny_config(DOORKEY), tmp_path, world_sizes=[2], json=str(tmp_path / "whole.json"))
    whole = json.loads((tmp_path / "whole.json").read_text())["rows"][0]
    assert rows[0]["copy"] == 2 * (whole["parameters"] - rows[0]["parameters"]), "the decoder's matrices"
    assert rows[0]["optimizer"] == 2 * rows[0]["parameters"] and rows[0]["activations"] > whole["activations"]
    with pytest.raises(UserError, match="has no multiple of sharding"):
        planned(config, tmp_path, world_sizes=[1, 3])


def test_a_plan_that_fits_nowhere_says_so_and_json_alone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert planned(tiny_config(CARTPOLE), tmp_path, world_sizes=[1], memory_gib=1e-6) == float("inf")
    assert "Nothing fits into plan.memory_gib=1e-06" in capsys.readouterr().out
    planned(tiny_config(CARTPOLE), tmp_path, world_sizes=[1], json="-")
    assert json.loads(capsys.readouterr().out)["smallest"]["ranks"] == 1


@pytest.mark.parametrize(("keys", "said"), [({"world_sizes": [0]}, "plan.world_sizes"), ({"memory_gib": 0.0}, "plan.memory_gib")])
def test_a_plan_for_nothing_is_refused(keys: dict[str, object], said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        planned(tiny_config(CARTPOLE), tmp_path, **keys)
