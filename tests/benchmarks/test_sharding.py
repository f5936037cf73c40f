"""`benchmarks.sharding`: what is run in how many processes, how it is measured, and what is made of the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import sharding, sharding_measure
from benchmarks.harness import Options
from benchmarks.training import composed_config
from world_model.batch import Sequences


def record(variant: str, figures: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    return {"variant": variant, "seed": 1, "error": error, "figures": figures}


def test_every_part_is_planned_once_or_one_alone():
    pytest.importorskip("minigrid", reason="needs the suites extra")
    runs = sharding.plan(Options(seeds=(1,), arguments={"only": None}))
    assert [run.variant for run in runs] == ["losses", "memory", "tensor_parallel", "doorkey"]
    assert runs[0].config["updates"] == 50 and runs[1].config["worlds"] == [2, 4] and runs[1].config["stages"] == [0, 1, 2, 3]
    assert runs[2].config["worlds"] == [2, 4], "one group of two that share the decoder, and two groups"
    own = runs[3].config
    assert own["sharding"]["stage"] == 3 and own["curriculum"] == composed_config([])["curriculum"], "the default curriculum"
    assert [run.variant for run in sharding.plan(Options(seeds=(1, 2), arguments={"only": "losses"}))] == ["losses"] * 2


def test_stages_have_their_worst_figures_and_errors_are_told():
    losses = {"stages": {"0": {"max_loss_difference": 1e-6}, "3": {"max_loss_difference": 2e-6}}}
    memory = {"stages": {"3": {"memory_error_percent": 0.5, "processes": {}}}}
    records = [record("losses", losses), record("memory", memory), record("doorkey", None, "exit code 1")]
    result = sharding.summarise(Options(), records)
    assert result["stages"] == {
        "0": {"max_loss_difference": 1e-6},
        "3": {"max_loss_difference": 2e-6, "memory_error_percent": 0.5},
    }
    assert result["errors"] == {"doorkey": "exit code 1"}
    with Console(width=120).capture() as _:
        Console(width=120).print(sharding.show(result))


def test_recorded_batches_are_shared_out_row_by_row_and_one_process_trains_on_them(tmp_path: Path):
    pytest.importorskip("minigrid", reason="needs the suites extra")
    config = composed_config([*sharding.SETTING, "model=debug", "env.num_envs=2", "train.batch=4", "train.length=8"])
    typed = sharding_measure.run_config(config, 1)
    given = {"batches": str(tmp_path / "batches.pt"), "updates": 8, "stage": None}
    found = sharding_measure.losses(given, typed)["loss"]
    assert len(found) == 8 and found[-1] < found[0]
    assert sharding_measure.losses(given, typed)["loss"] == found, "the batches are kept"
    whole = Sequences(**torch.load(tmp_path / "batches.pt", weights_only=True)[0])
    halves = [sharding_measure.share(whole, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat([halves[0].action, halves[1].action]), torch.cat([whole.action[::2], whole.action[1::2]]))


def test_memory_that_tensors_share_is_counted_once():
    whole = torch.zeros(10)
    assert sharding_measure.held_bytes([whole, whole[2:4], None, torch.zeros(3, dtype=torch.int64)]) == 40 + 24
