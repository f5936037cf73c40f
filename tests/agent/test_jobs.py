"""Jobs: what a run leaves behind, how it is gone on with, and what is refused."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from agent import Agent, evaluation, jobs
from agent.checkpoint import CheckpointStore
from agent.checksums import header
from agent.config import JobConfig, RunConfig
from agent.jobs import lost_processes
from agent.metrics_file import read_metrics
from agent.processes import Processes
from agent.shards import ShardReader, shard_names, synthetic_origin
from agent.stopping import stop_on_signal
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.tiny import CARTPOLE, DOORKEY, LINE, QUIET, files, same_tensors, tiny_config
from world_model.engines.joining import launched_processes

CONFIG = tiny_config(DOORKEY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Copy it before writing to it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    jobs.run_job(CONFIG, folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def resuming(config: RunConfig, folder: Path) -> RunConfig:
    return replace(config, resume=str(folder))


def asking(job: str, run: Path | None, config: RunConfig = CONFIG) -> RunConfig:
    return replace(config, job=JobConfig(job), checkpoint=str(run) if run else None)


def test_a_run_folder_holds_what_the_contract_says(finished: Path):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "replay", "media", ".lock",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert {"env_steps", "updates", "wall_seconds", "tasks", "steps_to_threshold", "seconds_to_threshold"} <= set(summary)
    assert summary["env_steps"] == 96 and summary["steps_to_threshold"] == {"DoorKey-5x5": None, "DoorKey-6x6": None}
    for task in ("DoorKey-5x5", "DoorKey-6x6"):
        assert {"success", "success_greedy", "return", "episodes"} <= set(summary["tasks"][task])
        assert summary["tasks"][task]["episodes"] == 2
    assert summary["objective"] == summary["tasks"]["DoorKey-6x6"]["success"], "the hardest task's"
    assert [row["env_steps"] for row in read_metrics(finished)] == [16, 32, 48, 64, 80, 96]
    assert [path.name for path in sorted((finished / "checkpoints").iterdir())] == ["step_000000048", "step_000000096"]
    assert jobs.is_finished(finished) and jobs.objective_of(finished) == summary["objective"]


def test_its_config_is_the_whole_config_as_it_was_given(finished: Path):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["env"]["tasks"] == ["DoorKey-5x5", "DoorKey-6x6"] and config["model"]["width"] == 32
    assert set(config) == set(vars(CONFIG))


def test_a_second_run_in_the_same_folder_is_refused_and_nothing_is_touched(run: Path):
    before = files(run)
    with pytest.raises(UserError, match=f"{run} holds a run already: go on with it by resume={run}"):
        jobs.run_job(CONFIG, run)
    assert files(run) == before


def test_a_run_that_cannot_start_leaves_its_folder_free_for_one_that_can(tmp_path: Path):
    with pytest.raises(UserError, match=r"env\.id=CartPool-v1 is unknown"):
        jobs.run_job(tiny_config(CARTPOLE | {"id": "CartPool-v1"}), tmp_path)
    assert files(tmp_path) == {}
    assert jobs.run_job(tiny_config(LINE, train={"env_steps": 32}), tmp_path) >= 0


def test_resuming_a_finished_run_says_so_evaluates_again_and_adds_no_line(run: Path, caplog: pytest.LogCaptureFixture):
    before = files(run)
    with caplog.at_level(logging.INFO):
        objective = jobs.run_job(resuming(CONFIG, run), run)
    assert "training is finished already" in caplog.text
    after = files(run)
    assert objective == json.loads(before["summary.json"])["objective"]
    rewritten = {"summary.json", "media/dream.png"} | {name for name in after if name.startswith("checkpoints/step_000000096/")}
    assert {name for name in after if after[name] != before[name]} <= rewritten and after.keys() == before.keys()
    assert after["checkpoints/step_000000096/model.safetensors"] == before["checkpoints/step_000000096/model.safetensors"]


def test_a_finished_run_can_be_given_more_steps(run: Path):
    longer = replace(CONFIG, train=replace(CONFIG.train, env_steps=128))
    jobs.run_job(resuming(longer, run), run)
    assert [row["env_steps"] for row in read_metrics(run)] == [16, 32, 48, 64, 80, 96, 112, 128]
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 128


def test_a_run_that_died_before_its_first_checkpoint_starts_from_the_beginning(run: Path, caplog: pytest.LogCaptureFixture):
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 112, "mod')  # died writing
    shards = shard_names(run / "replay")
    with caplog.at_level(logging.INFO):
        jobs.run_job(resuming(CONFIG, run), run)
    assert "was stopped before its first checkpoint: it starts from the beginning" in caplog.text
    assert [row["env_steps"] for row in read_metrics(run)] == [16, 32, 48, 64, 80, 96]
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 96
    assert shards and all((run / "replay" / f"{name}.orphan").is_file() for name in shards)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_as_it_is(run: Path):
    for path in (run / "checkpoints").iterdir():
        (path / "model.safetensors").write_bytes(b"torn")
    before = files(run)
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        jobs.run_job(resuming(CONFIG, run), run)
    assert files(run) == before


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run: Path, caplog: pytest.LogCaptureFixture):
    newest = run / "checkpoints" / "step_000000096"
    (newest / "training" / "tensors.pt").write_bytes(b"torn")
    with caplog.at_level(logging.INFO):
        jobs.run_job(resuming(CONFIG, run), run)
    assert "passing over checkpoint" in caplog.text and "going on from step_000000048" in caplog.text
    assert [row["env_steps"] for row in read_metrics(run)] == [16, 32, 48, 64, 80, 96]


def test_a_stopped_run_is_not_finished_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step = Trainer.step

    def stop_at_40(self: Trainer) -> None:
        step(self)
        self.stopping = self.env_steps == 40

    monkeypatch.setattr(Trainer, "step", stop_at_40)
    folder = tmp_path / ("a_long_folder_name_" * 6)  # longer than a line of the console
    jobs.run_job(replace(tiny_config(LINE), logger=replace(QUIET, report=True)), folder)
    assert (folder / "report.html").is_file()
    assert f"Stopped at 40 env steps; go on with: python run.py resume={folder}\n" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["tasks"] == {} and summary["env_steps"] == 40 and not jobs.is_finished(folder)
    assert CheckpointStore(folder / "checkpoints").latest() == folder / "checkpoints" / "step_000000040"


def test_the_first_signal_asks_a_run_to_stop_and_the_second_ends_the_program_at_once(tmp_path: Path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        trainer = Trainer(tiny_config(LINE), tmp_path)
        with pytest.raises(KeyboardInterrupt), stop_on_signal(trainer):
            signal.raise_signal(number)
            assert trainer.stopping
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_a_launcher_passes_on_once_more_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    job: Any = SimpleNamespace(stopping=False)
    with stop_on_signal(job):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert job.stopping
    monkeypatch.setenv("WORLD_SIZE", "")
    assert launched_processes() == 1


def test_only_what_has_no_room_is_told_to_make_some(tmp_path: Path):
    with pytest.raises(UserError, match="make room"), lost_processes(tmp_path, Processes()):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), lost_processes(tmp_path, Processes()):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_run_stopped_during_its_evaluation_is_trained_but_not_finished_and_evaluates_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = replace(tiny_config(LINE, train={"env_steps": 48}), logger=replace(QUIET, report=True))
    play = evaluation._play

    def interrupted(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return play(*given)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_play", interrupted)
        jobs.run_job(config, tmp_path)
    said = (
        f"Training ended at 48 env steps, but its evaluation was stopped; to evaluate it again: python run.py resume={tmp_path}\n"
    )
    assert said in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file() and not (tmp_path / "media").exists() and not jobs.is_finished(tmp_path)
    assert CheckpointStore(tmp_path / "checkpoints").latest() == tmp_path / "checkpoints" / "step_000000048"
    jobs.run_job(resuming(config, tmp_path), tmp_path)
    assert jobs.is_finished(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, UserError])
def test_a_picture_that_cannot_be_drawn_does_not_cost_the_run_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
):
    def broken(*args: object, **options: object) -> float:
        raise error("no canvas")

    monkeypatch.setattr(jobs, "picture_dream", broken)
    jobs.run_job(tiny_config(LINE, train={"env_steps": 32}), tmp_path)
    assert jobs.is_finished(tmp_path) and "the dream could not be drawn: no canvas" in caplog.text


# -- jobs on a trained agent ---------------------------------------------------------------------------------------------


def test_evaluating_writes_its_results_and_nothing_into_the_run(finished: Path, tmp_path: Path):
    before = files(finished)
    objective = jobs.run_job(asking("evaluate", finished), tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["checkpoint"] == str(finished) and objective == found["tasks"]["DoorKey-6x6"]["success"]
    summary = json.loads((finished / "summary.json").read_text())
    assert found["tasks"] == summary["tasks"], "the same agent on the same layouts"
    assert files(finished) == before and set(files(tmp_path)) == {"evaluation.json"}


def test_dreaming_draws_every_task(finished: Path, tmp_path: Path):
    before = files(finished)
    asked = asking("dream", finished)
    asked = replace(asked, dream=replace(asked.dream, episodes=2), logger=replace(asked.logger, report=True))
    assert jobs.run_job(asked, tmp_path) >= 0
    dreams = [f"dream_DoorKey-{name}" for name in ("5x5", "5x5_2", "6x6", "6x6_2")]
    drawn = {f"media/{dream}.{kind}" for dream in dreams for kind in ("png", "json")}
    assert set(files(tmp_path)) == drawn | {"dream.json", "report.html"}
    assert files(finished) == before
    told = json.loads((tmp_path / "dream.json").read_text())
    assert [dream["picture"] for dream in told["tasks"]["DoorKey-6x6"]] == ["dream_DoorKey-6x6.png", "dream_DoorKey-6x6_2.png"]
    one = told["tasks"]["DoorKey-5x5"][0]
    assert one["horizon"] == 3 and one["samples"] == 2 and set(one["wrong_share"]) == {"image", "direction"}
    assert set(one["first_wrong"]) == {"image", "direction", "reward", "end"} and len(one["wrong_share"]["image"]) == 3


def test_imagined_episodes_are_written_into_a_new_folder_with_where_they_come_from(finished: Path, tmp_path: Path):
    before = files(finished)
    asked = asking("dream", finished)
    asked = replace(asked, dream=replace(asked.dream, episodes=0, dataset=str(tmp_path / "made"), dataset_episodes=5))
    jobs.run_job(asked, tmp_path / "out")
    names = shard_names(tmp_path / "made")
    assert len(names) == 2 and files(finished) == before and not (tmp_path / "out").exists()
    spec = Agent.load(finished, "cpu").model.spec
    origin = synthetic_origin(tmp_path / "made" / names[0], spec)
    assert origin == {"run": finished.name, "env_steps": 96, "seed": 1, "horizon": 3, "policy": "sample"}
    made = list(ShardReader(tmp_path / "made", spec, synthetic=True).episodes())
    assert len(made) == 5 and all(episode.synthetic and 1 <= len(episode) <= 3 for episode in made)
    with pytest.raises(UserError, match=r"dream.dataset=.*made holds stored episodes already: give a new folder"):
        jobs.run_job(asked, tmp_path / "out")
    with pytest.raises(UserError, match=r"replay holds stored episodes already"):
        jobs.run_job(replace(asked, dream=replace(asked.dream, dataset=str(finished / "replay"))), tmp_path / "out")


def test_a_run_does_not_go_on_with_imagined_episodes_unless_told_to(run: Path, tmp_path: Path):
    shard = run / "replay" / shard_names(run / "replay")[0]
    with h5py.File(shard, "r+") as file:
        file.attrs["synthetic"] = json.dumps({"run": "another"})
        file.attrs["sha256"] = header(file.attrs, [file[f"episode_{i}"].attrs["sha256"] for i in range(len(file))])
    with pytest.raises(UserError, match=r"holds imagined episodes \(run another\): .* replay.synthetic=true"):
        jobs.run_job(resuming(CONFIG, run), run)
    told = replace(CONFIG, replay=replace(CONFIG.replay, synthetic=True))
    jobs.run_job(resuming(told, run), run)
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 96


def test_a_run_ends_with_a_dream_and_its_film(tmp_path: Path):
    config = tiny_config(LINE, train={"env_steps": 32})
    jobs.run_job(replace(config, dream=replace(config.dream, film=True)), tmp_path)
    assert {"media/dream.png", "media/dream.gif", "media/dream.json"} <= set(files(tmp_path))


def test_an_agent_loaded_from_its_folder_acts_as_the_job_would_have_it(finished: Path):
    loaded = Agent.load(finished, "cpu")
    ours = jobs.trained_agent(asking("evaluate", finished))
    rng = np.random.default_rng(0)
    obs = {
        "image": rng.integers(0, 3, (2, 7, 7, 3)).astype(np.uint8),
        "direction": np.array([[0], [3]]),
        "mission": np.zeros((2, 96), np.uint8),
    }
    first = np.ones(2, bool)
    actions = []
    for agent in (loaded, ours):
        action, log_prob, state = agent.act(obs, first, agent.initial_state(2), "greedy")
        actions.append((action.tolist(), log_prob.tolist(), state.h.tolist()))
    assert actions[0] == actions[1]


def test_keys_that_a_checkpoint_was_trained_with_and_that_are_gone_are_named_and_left_out(
    run: Path, finished: Path, caplog: pytest.LogCaptureFixture
):
    path = run / "checkpoints" / "step_000000096"
    (path / "manifest.json").unlink()
    meta = json.loads((path / "agent.json").read_text())
    meta["config"]["model"]["losses"]["prophecy"] = 2.0
    meta["config"]["hierarchy"]["rank"] = 1
    (path / "agent.json").write_text(json.dumps(meta))
    agent = Agent.load(path, "cpu")
    assert "made by another version: it is read without its keys model.losses.prophecy, hierarchy.rank" in caplog.text
    assert same_tensors(agent.model.state_dict(), Agent.load(finished, "cpu").model.state_dict())
    meta["config"]["model"]["width"] = "wide"
    (path / "agent.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"made by another version: Value 'wide'"):
        Agent.load(path, "cpu")


def test_loading_an_agent_changes_nothing_that_is_drawn_at_random_on_disk_or_in_its_weights(finished: Path):
    before = files(finished)
    one, other = (jobs.trained_agent(asking("evaluate", finished)) for _ in range(2))
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
    assert files(finished) == before


@pytest.mark.parametrize("job", ["evaluate", "dream"])
def test_a_job_on_a_trained_agent_needs_one(job: str, tmp_path: Path):
    with pytest.raises(UserError, match=f"job={job} needs checkpoint=RUN_FOLDER"):
        jobs.run_job(asking(job, None), tmp_path)
    with pytest.raises(UserError, match="is not a Strata checkpoint"):
        jobs.run_job(asking(job, tmp_path), tmp_path)


def test_an_agent_of_another_model_or_environment_is_refused(finished: Path, tmp_path: Path):
    other = replace(CONFIG, model=replace(CONFIG.model, hidden=16))
    with pytest.raises(UserError, match=r"is of another model: model weight .* use the model= options"):
        jobs.run_job(asking("evaluate", finished, other), tmp_path)
    with pytest.raises(UserError, match="for other observations or actions"):
        jobs.run_job(asking("evaluate", finished, tiny_config(CARTPOLE)), tmp_path)


@pytest.mark.parametrize("meta", ["{}", '{"format": 99}', '{"format": 1}', "[1]", "{"])
def test_a_folder_that_only_looks_like_a_checkpoint_is_refused(tmp_path: Path, meta: str):
    (tmp_path / "agent.json").write_text(meta)
    with pytest.raises(UserError, match=r"format|damaged"):
        jobs.run_job(asking("evaluate", tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match=r"format|damaged"):
        Agent.load(tmp_path, "cpu")


def test_weights_of_anything_else_are_refused(run: Path):
    from safetensors.torch import save_file

    path = run / "checkpoints" / "step_000000096"
    (path / "manifest.json").unlink()
    save_file({"lm_head.weight": torch.zeros(2)}, path / "model.safetensors")
    with pytest.raises(UserError, match="is of another model"):
        Agent.load(path, "cpu")


def test_an_unknown_job_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(UserError, match="job 'deploy' is unknown; choose one of train, pretrain, evaluate, dream"):
        jobs.run_job(replace(CONFIG, job=JobConfig("deploy")), tmp_path)
