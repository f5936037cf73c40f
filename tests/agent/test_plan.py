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
from agent.plan.budget import Budget, Shards, acting_bytes, budgets, imagination_bytes, shard, smallest
from agent.plan.job import env_spec
from agent.plan.trace import SavedBytes, Trace, on_shapes, trace
from envs.errors import UserError
from tests.agent.tiny import CARTPOLE, DOORKEY, tiny_config
from tests.test_configs import composed

FOUND = Trace((1000, 24), frozen=8, policy=100, activations=5000, policy_activations=7, cache_element=4, groups=3, view=32)


@pytest.mark.parametrize(
    ("stage", "ranks", "expected"),
    [
        (0, 1, (4096, 4096, 8192)),  # 1,024 floats; two moments each
        (0, 4, (4096, 4096, 8192)),
        (1, 4, (4096, 4096, 3072)),  # a quarter: two moments and a copy of the weights, 12 bytes x 256
        (2, 4, (4096, 1024, 3072)),
        (3, 4, (1024, 1024, 3072)),
        (3, 3, (1368, 1368, 4104)),  # 1,024 / 3 rounded up is 342
    ],
)
def test_shards_by_hand(stage: int, ranks: int, expected: tuple[int, int, int]):
    assert shard((1000, 24), stage, ranks) == Shards(*expected)


def test_small_parameters_stay_whole_below_the_persistence_threshold():
    assert shard((1000, 24), 3, 4, persistent=100).parameters == 4 * (24 + 250)


def test_imagination_and_acting_by_hand():
    config = tiny_config(CARTPOLE)  # 4 x 8 steps, 2 starts, horizon 3, one layer of width 32, window 8, 4 environments
    caches = 2 * 4 * (8 + (8 + 2 * 3)) * 32 * 4
    mask = 3 * 4 * 2 * (8 + 2 * 3)
    rollout = 2 * (3 + 1) * 8 * (3 * 8 + 32 * 4)
    assert imagination_bytes(config, FOUND) == caches + mask + rollout + 7
    assert acting_bytes(config) == 2 * 4 * 8 * 32 * 4


def test_the_most_at_once_counts_either_the_backward_pass_or_imagination():
    budget = Budget(1, 2, Shards(10, 20, 30), policy=5, activations=100, imagination=70, acting=1)
    assert budget.total == 10 + 20 + 30 + 5 + 1 + 100
    assert replace(budget, imagination=300).total == 66 + 300
    assert not budget.to_dict(165)["fits"] and budget.to_dict(166)["fits"]


def test_the_smallest_that_fits_has_the_fewest_ranks_then_the_lowest_stage():
    config = tiny_config(CARTPOLE)
    config.plan = PlanConfig([4, 1, 2])
    found = budgets(config, FOUND)
    assert len(found) == 12
    totals = {(budget.ranks, budget.stage): budget.total for budget in found}
    assert totals[1, 0] < totals[1, 1] == totals[1, 3], "one rank shards nothing, and keeps a copy of the weights"
    chosen = smallest(found, totals[2, 2])
    assert chosen is not None and (chosen.ranks, chosen.stage) == (2, 2)
    assert smallest(found, 100) is None


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


@pytest.mark.parametrize("given", [["model=debug", "hierarchy=director"], ["model=xs"], ["model=s"],
                                   ["model=debug", "experiment=pendulum", "model.precision=bf16"]], ids=",".join)  # fmt: skip
def test_traced_bytes_are_those_that_autograd_keeps(given: list[str]):
    config = composed(*given, "train.batch=4")
    spec = env_spec(config)
    planned, measured = trace(config, spec), trace(config, spec, shapes_only=False)
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


def test_a_plan_that_fits_nowhere_says_so_and_json_alone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert planned(tiny_config(CARTPOLE), tmp_path, world_sizes=[2], memory_gib=1e-6) == float("inf")
    assert "Nothing fits into plan.memory_gib=1e-06" in capsys.readouterr().out
    planned(tiny_config(CARTPOLE), tmp_path, json="-")
    assert json.loads(capsys.readouterr().out)["smallest"]["ranks"] == 1


@pytest.mark.parametrize(("keys", "said"), [({"world_sizes": [0]}, "plan.world_sizes"), ({"memory_gib": 0.0}, "plan.memory_gib")])
def test_a_plan_for_nothing_is_refused(keys: dict[str, object], said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        planned(tiny_config(CARTPOLE), tmp_path, **keys)
