"""DeepSpeed takes the updates that plain PyTorch takes, on one process and on two, and each resumes what the other saved.

Tolerances: the same float32 operations in another order (gradients in one flat buffer, averaged over processes) differ in their
last bits, by a relative 1e-7 or so, and five updates let that grow a little. A weight moves by up to 5e-3 here, five times the
learning rate: 1e-5 is a five-hundredth of that, and without clipping, averaging or the saved moments they differ by far more.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.errors import UserError
from tests.world_model.conftest import SPEC, tiny_config
from tests.world_model.engine_run import GRAD_CLIP, UPDATES, new_engine, train
from tests.world_model.tiny_encoders import save_text_encoder
from world_model.config import ShardingConfig
from world_model.engines import check_partitioning, make_engine
from world_model.model import WorldModel

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
LIMIT = 900  # seconds: a process takes ten of its own, but may have to share the machine


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=LIMIT)


def trainings(out: Path, runs: list[dict[str, Any]], launcher: tuple[str, ...] = (), **environment: str) -> list[Any]:
    """What every process found: one entry a run."""
    options = json.dumps({"out": str(out), "runs": runs})
    done = python("-m", *launcher, "tests.world_model.engine_run", options, **environment)
    assert done.returncode == 0, done.stderr
    return [torch.load(path, weights_only=True) for path in sorted(out.glob("rank_*.pt"))]


def assert_same(found: dict[str, Any], expected: dict[str, Any], updates: int = UPDATES) -> None:
    """Same losses and gradient norms in the last `updates`, same weights and moments after them."""
    assert len(found["loss"]) == updates
    for name in ("loss", "grad_norm"):
        assert found[name] == pytest.approx(expected[name][-updates:], rel=2e-6), name
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-5)
    for index, own in expected["optimizer"]["state"].items():
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(found["optimizer"]["state"][index][name], own[name], rtol=1e-4, atol=1e-6)


def test_every_zero_stage_takes_the_updates_of_plain_pytorch_and_resumes_them_without_a_compiler(tmp_path: Path):
    expected = train(new_engine("local"))
    assert min(expected["grad_norm"]) > GRAD_CLIP  # else clipping is not seen
    saved = tmp_path / "local.pt"
    torch.save(train(new_engine("local"), end=2), saved)
    stages = ("deepspeed:0", "deepspeed:1", "deepspeed:2", "deepspeed:3", "deepspeed:3:step")
    runs: list[dict[str, Any]] = [{"engine": name} for name in stages]
    runs += [{"engine": name, "first": 2, "saved": str(saved)} for name in stages]
    drawing = {"ensemble": 2}
    runs += [{"engine": "deepspeed:3", "model": drawing}, {"engine": "deepspeed:3:rollout:all"}]
    extensions = tmp_path / "extensions"
    (found,) = trainings(tmp_path, runs, CXX="/no/compiler", TORCH_EXTENSIONS_DIR=str(extensions))
    for whole, resumed in zip(found[: len(stages)], found[len(stages) : -2], strict=True):
        assert_same(whole, expected)
        assert_same(resumed, expected, UPDATES - 2)
    assert_same(found[-2], train(new_engine("local", model=drawing)))
    assert_same(found[-1], expected)
    assert not extensions.exists()


def test_an_encoder_with_a_learning_rate_of_its_own_is_trained_and_resumed_alike(tmp_path: Path):
    pretrained = {"mission": {"id": save_text_encoder(tmp_path / "encoder"), "mode": "full"}}
    expected = train(new_engine("local", pretrained=pretrained))
    saved = tmp_path / "local.pt"
    torch.save(train(new_engine("local", pretrained=pretrained), end=2), saved)
    run = {"engine": "deepspeed:1", "pretrained": pretrained}
    ((whole, resumed),) = trainings(tmp_path, [run, run | {"first": 2, "saved": str(saved)}])
    assert_same(whole, expected)
    assert_same(resumed, expected, UPDATES - 2)


PAIRED: list[dict[str, Any]] = [
    {"engine": "deepspeed:1"},
    {"engine": "deepspeed:2", "first": 2},
    {"engine": "deepspeed:3"},
    {"engine": "deepspeed:3:step", "first": 2},
    {"engine": "deepspeed:1", "end": 2},
    {"engine": "deepspeed:3:step", "end": 2},
    # From here on with tensor parallelism, which DeepSpeed keeps for the rest of a process.
    {"engine": "deepspeed:0:::2"},
    {"engine": "deepspeed:0:::2", "first": 2},
    {"engine": "deepspeed:2::optimizer:2", "first": 2},
    {"engine": "deepspeed:1:::2", "end": 2},
    {"engine": "deepspeed:1:::2", "model": {"cell_dropout": 0.3, "precision": "bf16"}},
]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process finds."""
    return train(new_engine("local"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two processes found: of each rank an entry for every one of `PAIRED`. Those that begin later go on from one."""
    folder = tmp_path_factory.mktemp("paired")
    torch.save(train(new_engine("local"), end=2), folder / "local.pt")
    saved = {"saved": str(folder / "local.pt")}
    return trainings(folder, [run | (saved if "first" in run else {}) for run in PAIRED], LAUNCHER)


def test_two_processes_with_half_a_batch_each_take_the_updates_of_one_and_one_resumes_theirs(
    alone: dict[str, Any], ranks: list[Any]
):
    assert len(ranks) == 2
    for run, updates in ((0, UPDATES), (1, UPDATES - 2), (2, UPDATES), (3, UPDATES - 2)):
        mean = [sum(losses) / 2 for losses in zip(*(rank[run]["loss"] for rank in ranks), strict=True)]
        assert ranks[1][run]["grad_norm"] == ranks[0][run]["grad_norm"]
        assert_same(ranks[0][run] | {"loss": mean}, alone, updates)
    for run in (4, 5):
        assert_same(train(new_engine("local", seed=1), first=2, saved=ranks[0][run]), alone, UPDATES - 2)


def test_two_processes_that_share_the_decoder_take_the_updates_of_one_and_one_resumes_theirs(
    alone: dict[str, Any], ranks: list[Any]
):
    for run, updates in ((6, UPDATES), (7, UPDATES - 2), (8, UPDATES - 2)):
        for rank, found in enumerate(ranks):
            state = {"optimizer": ranks[0][run]["optimizer"]}  # rank 0 alone is answered with all of it
            assert_same(found[run] | state, alone, updates)
            assert found[run]["norms"] == pytest.approx(alone["norms"], rel=1e-4)
            for name, value in alone["pass"].items():  # of its own rows, with all heads: imagination goes on from there
                torch.testing.assert_close(found[run]["pass"][name], value[rank::2], rtol=1e-4, atol=1e-5)
    assert_same(train(new_engine("local", seed=1), first=2, saved=ranks[0][9]), alone, UPDATES - 2)
    one, other = (rank[10] for rank in ranks)
    assert one["loss"] == other["loss"], "both drew the same"
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DS_ACCELERATOR": "cuda"}, "device=cpu does not go with DS_ACCELERATOR=cuda: unset it, or use device=cuda"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, but .* RANK .*; use torchrun, or unset WORLD_SIZE"),
    ],
)
def test_an_environment_for_other_processes_is_refused_in_one_sentence(environment: dict[str, str], sentence: str):
    script = (
        "from envs.errors import UserError\n"
        "from tests.world_model.engine_run import new_engine\n"
        "try: new_engine('deepspeed:1')\n"
        "except UserError as error: print('refused:', error)"
    )
    done = python("-c", script, **environment)
    assert re.search(f"^refused: {sentence}$", done.stdout, re.MULTILINE), done.stdout[-1000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("sharding", "sentence"),
    [
        (ShardingConfig("deepspeed", 4), "sharding.stage=4 is unknown; choose one of 0, 1, 2, 3"),
        (ShardingConfig("deepspeed", 3, gather="never"), "sharding.gather=never is unknown; choose one of rollout, step"),
        (ShardingConfig("deepspeed", 3, persistence=-1), "sharding.persistence=-1 is too few"),
        (ShardingConfig("deepspeed", 2, offload="all"), "give sharding=zero3, or sharding.offload=optimizer"),
        (ShardingConfig("deepspeed", 0, offload="optimizer"), "give sharding=zero1, zero2 or zero3"),
        (ShardingConfig("local", offload="optimizer"), "sharding.offload=optimizer is DeepSpeed's"),
        (ShardingConfig("deepspeed", 1, tensor_parallel=0), "sharding.tensor_parallel=0 is too few: give 1 for none"),
        (ShardingConfig("local", tensor_parallel=2), "sharding.tensor_parallel=2 is DeepSpeed's: give sharding=zero0 to zero2"),
        (ShardingConfig("deepspeed", 3, tensor_parallel=2), "sharding.tensor_parallel=2 does not go with sharding=zero3.*zero2"),
        (
            ShardingConfig("deepspeed", 1, tensor_parallel=2),
            "groups of 2 processes, which 1 do not make up: start a multiple of 2",
        ),
        (ShardingConfig("horovod"), "sharding.engine 'horovod' is unknown; choose local or deepspeed"),
    ],
)
def test_settings_that_there_are_none_of_or_that_do_not_go_together_are_refused_by_name(sharding: ShardingConfig, sentence: str):
    with pytest.raises(UserError, match=sentence):
        make_engine(sharding, lambda: WorldModel(SPEC, tiny_config()), torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3, "width": 48}, "splits .* evenly: .* divides model.heads=3 and model.width . model.mlp_ratio = 96"),
        ({"mlp_ratio": 1.03125}, "divides model.heads=2 and model.width . model.mlp_ratio = 33"),
        ({"compile": "eager"}, "give sharding.tensor_parallel=1, or model.compile=null"),
    ],
)
def test_decoders_that_cannot_be_split_are_refused_by_name(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        check_partitioning(ShardingConfig("deepspeed", 1, tensor_parallel=2), tiny_config(**changes))


def test_several_processes_need_an_engine_for_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="sharding=local trains in one process: give sharding=zero1"):
        make_engine(ShardingConfig(), lambda: WorldModel(SPEC, tiny_config()), torch.device("cpu"))


def test_a_plain_run_does_not_import_deepspeed():
    done = python("-c", "import sys, run, agent.jobs, world_model.engines; print('deepspeed' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr[-2000:]
