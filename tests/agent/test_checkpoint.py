"""A checkpoint is whole or passed over, and nothing in one is ever executed."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent import checkpoint
from agent.checkpoint import CheckpointStore, TrainingState, load_meta, load_training, load_weights, resolve
from agent.loading import saved_groups
from agent.manifest import MANIFEST, write_manifest
from envs.errors import UserError


def save(folder: Path, env_steps: int = 1000, keep: int = 2, value: float = 1.0) -> Path:
    state = TrainingState({"lr": 0.5, "step": torch.tensor(3)}, {"updates": 7}, {"open/0/action": np.arange(3)})
    return CheckpointStore(folder, keep).save(env_steps, {"w": torch.full((2, 3), value)}, {"format": 1}, state)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def message(call: Callable[..., object], *args: object) -> str:
    """The one sentence of the UserError that a call ends with."""
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    return str(error.value)


def test_weights_meta_and_training_state_come_back(tmp_path: Path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    rng = np.random.default_rng(5)
    rng.random(3)
    training = TrainingState(
        tensors={"optimizer": optimizer.state_dict(), "torch_rng": torch.get_rng_state(), "nested": [1, (2.5, None, "x", True)]},
        state={"rng": rng.bit_generator.state, "updates": np.int64(12), "shards": ["shard_000000.h5"]},
        arrays={"open/3/obs/view.image": np.arange(8, dtype=np.uint8).reshape(2, 4)},
    )
    path = CheckpointStore(tmp_path).save(20_000, model.state_dict(), {"config": {"seed": 1}}, training)

    assert path == tmp_path / "step_000020000" and load_meta(path) == {"config": {"seed": 1}}
    for name, value in load_weights(path).items():
        assert torch.equal(value, model.state_dict()[name])
    back = load_training(path)
    torch.optim.Adam(model.parameters()).load_state_dict(back.tensors["optimizer"])
    assert torch.equal(back.tensors["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert back.tensors["nested"] == [1, (2.5, None, "x", True)]
    again = np.random.default_rng()
    again.bit_generator.state = back.state.pop("rng")  # its integers have 128 bits
    assert again.random() == rng.random()
    assert back.state == {"updates": 12, "shards": ["shard_000000.h5"]}
    assert back.arrays["open/3/obs/view.image"].dtype == np.uint8 and back.arrays["open/3/obs/view.image"].shape == (2, 4)


def test_weights_that_share_memory_or_are_views_are_stored_each(tmp_path: Path):
    table = torch.arange(6.0).reshape(2, 3)
    path = CheckpointStore(tmp_path).save(1, {"a": table, "tied": table, "view": table.T, "row": table[1]}, {}, TrainingState())
    weights = load_weights(path)
    assert torch.equal(weights["a"], table) and torch.equal(weights["tied"], table)
    assert torch.equal(weights["view"], table.T) and torch.equal(weights["row"], table[1])


def test_the_last_two_are_kept(tmp_path: Path):
    for env_steps in (100, 200, 300, 400, 500):
        save(tmp_path, env_steps)
    assert names(tmp_path) == ["step_000000400", "step_000000500"]
    assert CheckpointStore(tmp_path).latest() == tmp_path / "step_000000500"


def test_what_was_just_saved_is_kept_even_where_later_ones_are_there(tmp_path: Path):
    save(tmp_path, 300)
    save(tmp_path, 400)
    assert save(tmp_path, 100).is_dir()


def test_the_best_stays_beside_the_last_ones_and_of_equals_the_newest(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=1, best=True)
    for env_steps, score in ((1, None), (2, 0.7), (3, 0.9), (4, 0.9), (5, 0.2), (6, None)):
        store.save(env_steps, {}, {"score": score}, TrainingState())
    assert names(tmp_path) == ["step_000000004", "step_000000006"]
    assert store.latest() == tmp_path / "step_000000006", "what a run goes on from is the last, not the best"


def test_the_parts_of_other_processes_are_published_with_the_checkpoint_and_checked_as_it_is(tmp_path: Path):
    store = CheckpointStore(tmp_path)
    for rank in (1, 2):
        store.save_part(rank, TrainingState(state={"rank": rank}))
    assert store.latest() is None, "parts alone are no checkpoint"
    path = store.save(5, {}, {}, TrainingState(state={"rank": 0}), processes=3)
    assert names(tmp_path) == ["step_000000005"]
    assert [load_training(path, rank).state["rank"] for rank in range(3)] == [0, 1, 2]
    (path / "training" / "rank_2" / "state.json").write_text("{}")
    assert "rank_2/state.json has" in message(load_training, path, 2)
    assert store.latest() is None


def test_to_keep_none_is_refused(tmp_path: Path):
    assert message(CheckpointStore, tmp_path, 0).startswith("train.keep_checkpoints=0")


def test_saving_at_the_same_step_replaces(tmp_path: Path):
    save(tmp_path, 100, value=1)
    path = save(tmp_path, 100, value=2)
    assert load_weights(path)["w"].unique().tolist() == [2] and names(tmp_path) == ["step_000000100"]


def die(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_half_written_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    whole = save(tmp_path, 100)
    for victim in ("save_file", "write_json", "write_manifest"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, victim, die)
            save(tmp_path, 200)
        assert names(tmp_path) == [".step_000000200.tmp", "step_000000100"]
        with caplog.at_level(logging.WARNING):
            assert resolve(tmp_path) == whole
        assert ".step_000000200.tmp: it was never finished" in caplog.text
    save(tmp_path, 300)
    assert names(tmp_path) == ["step_000000100", "step_000000300"], "leftovers go when the next one is saved"


def test_a_writer_killed_while_replacing_a_checkpoint_leaves_the_one_it_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 100, value=1)
    monkeypatch.setattr(checkpoint, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 100, value=2)
    latest = CheckpointStore(tmp_path).latest()
    assert latest is not None and load_weights(latest)["w"].unique().tolist() == [1]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda path: (path / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest cut short": (lambda path: (path / MANIFEST).write_text('{"format": 1, "fi'), "manifest.json cannot be used"),
    "manifest of noise": (lambda path: (path / MANIFEST).write_bytes(bytes(range(128, 256))), "manifest.json cannot be used"),
    "manifest of another kind": (lambda path: (path / MANIFEST).write_text("[1]"), "manifest.json cannot be used"),
    "manifest of a later version": (lambda path: (path / MANIFEST).write_text('{"format": 99, "files": {}}'), "its format is 99"),
    "manifest that names nothing": (lambda path: (path / MANIFEST).write_text('{"format": 1, "files": {}}'), "is not named"),
    "a file missing": (lambda path: (path / "training/state.json").unlink(), "training/state.json is missing"),
    "a file cut short": (lambda path: (path / "model.safetensors").write_bytes(b"12345678"), "has 8 bytes in place of"),
    "a bit flipped": (lambda path: flip(path / "training/tensors.pt"), "training/tensors.pt does not match its checksum"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_reason_and_left_alone(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    damage, reason = DAMAGES[name]
    whole, damaged = save(tmp_path, 100), save(tmp_path, 200)
    damage(damaged)
    with caplog.at_level(logging.WARNING):
        assert CheckpointStore(tmp_path).latest() == whole
    assert "step_000000200" in caplog.text and reason in caplog.text and damaged.is_dir()


def test_a_file_that_does_not_match_its_checksum_is_refused_by_name(tmp_path: Path):
    path = save(tmp_path)
    flip(path / "model.safetensors")
    assert "model.safetensors does not match its checksum" in message(load_weights, path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


def test_a_pickled_object_is_refused_and_not_executed(tmp_path: Path):
    target = tmp_path / "executed"
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists(), "it would do harm"
    target.unlink()

    path = save(tmp_path / "checkpoints")
    for write in (
        lambda file: torch.save({"x": Malicious(target)}, file),
        lambda file: file.write_bytes(pickle.dumps(Malicious(target), protocol=2)),
    ):
        write(path / "training/tensors.pt")
        write_manifest(path)  # as an attacker would
        assert "training/tensors.pt cannot be read" in message(load_training, path)
    assert not target.exists()


def test_arrays_of_objects_are_refused_and_not_executed(tmp_path: Path):
    target = tmp_path / "executed"
    path = save(tmp_path / "checkpoints")
    np.savez(path / "training/arrays.npz", x=np.array([Malicious(target)], dtype=object))
    write_manifest(path)
    assert "training/arrays.npz cannot be read" in message(load_training, path)
    assert not target.exists()


UNSTORABLE = {
    "tensors.a.0 is a float64": TrainingState(tensors={"a": [np.float64(1)]}),
    "tensors.f is a function": TrainingState(tensors={"f": die}),
    "state.json cannot hold a Tensor": TrainingState(state={"x": torch.ones(1)}),
    "arrays.o holds Python objects": TrainingState(arrays={"o": np.array([None])}),
}


@pytest.mark.parametrize("reason", UNSTORABLE)
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(tmp_path: Path, reason: str):
    whole = save(tmp_path, 100)
    with pytest.raises(TypeError, match=reason):
        CheckpointStore(tmp_path).save(200, {}, {}, UNSTORABLE[reason])
    assert CheckpointStore(tmp_path).latest() == whole


def test_a_run_its_checkpoints_folder_and_one_checkpoint_all_resolve(tmp_path: Path):
    first, last = save(tmp_path / "checkpoints", 100), save(tmp_path / "checkpoints", 200)
    assert resolve(tmp_path) == resolve(str(tmp_path / "checkpoints")) == resolve(last) == last
    assert resolve(first) == first


def test_what_is_no_checkpoint_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    refused = message(resolve, tmp_path / "other")
    assert "other is not a Strata checkpoint, agent.json is missing" in refused and "RUN/checkpoints/step_" in refused
    assert "nowhere does not exist" in message(resolve, tmp_path / "nowhere")
    assert "run holds no whole checkpoint" in message(resolve, tmp_path / "run")
    assert "is not a Strata checkpoint" in message(load_weights, tmp_path / "other")


def test_an_agent_can_be_handed_on_without_its_training_state(tmp_path: Path):
    path = save(tmp_path)
    shutil.rmtree(path / "training")
    (path / MANIFEST).unlink()
    assert load_weights(resolve(path))["w"].shape == (2, 3) and load_meta(path) == {"format": 1}
    assert "is incomplete, training/tensors.pt is missing" in message(load_training, path)


def test_a_config_from_before_grids_had_maps_is_of_a_model_without():
    saved = saved_groups({"config": {"model": {"width": 32}, "env": {}}}, Path("old"), ("model", "env"))
    assert saved == {"model": {"maps": False, "width": 32}, "env": {}}
    kept = saved_groups({"config": {"model": {"maps": True}}}, Path("new"), ("model",))
    assert kept == {"model": {"maps": True}}
