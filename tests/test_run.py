"""`python run.py` as people use it: runs that are killed, stopped, resumed; and bad input, told in one sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import run
from agent.checkpoint import FILES, CheckpointStore, load_meta, load_training
from agent.manifest import fault
from agent.metrics_file import read_metrics
from agent.shards import ShardReader, shard_names
from envs.spaces.specs import EnvSpec
from tests.agent.tiny import files, same_tensors

ROOT = Path(__file__).resolve().parent.parent
MODEL = ["model=debug", "hierarchy.starts=2", "hierarchy.horizon=3", "hierarchy.actor_critic.hidden=16"]
TINY = [
    "env.tasks=[DoorKey-5x5]", "env.num_envs=4", "env.kwargs.max_steps=10", "train.threads=1", "train.batch=4", "train.length=8",
    "train.random_steps=32", "train.warmup_updates=2", "train.update_every=8", "train.env_steps=64", "train.checkpoint_every=16",
    "train.log_every=8", "eval.episodes=1", "dream.horizon=2", "dream.film=false", "logger=none", "logger.report=false", *MODEL,
]  # fmt: skip


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    error: str


Command = Callable[..., Answer]


@pytest.fixture
def strata(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`run.py` within this process (starting Python anew costs seconds): arguments in, exit code and output out."""

    def command(*arguments: str) -> Answer:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which `main` sets
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code: Any = 0
        try:
            run.main()
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return command


def start(*arguments: str, script: str | None = None) -> subprocess.Popen[str]:
    """`run.py` in a process of its own; `script` in place of it may look at what is left afterwards."""
    program = ["-c", script] if script else [str(ROOT / "run.py")]
    command, environment, pipe = [sys.executable, *program, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)


def wait_for_step(process: subprocess.Popen[str], env_steps: int) -> int:
    """Read what a run prints until it has logged that many steps; answers how many it has."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.match(r"([\d,]+) steps \|", line)
        if found and int(found[1].replace(",", "")) >= env_steps:
            return int(found[1].replace(",", ""))
    assert process.stderr is not None
    raise AssertionError(f"it ended before {env_steps} steps: {process.stderr.read()}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", *TINY, f"hydra.run.dir={folder}"])
        run.main()
    return folder


# -- killed, stopped, resumed --------------------------------------------------------------------------------------------

LEAVING = "import sys, run; sys.argv[0] = 'run.py'; run.main(); ray = sys.modules.get('ray'); "
LEAVING += "print('RAY', bool(ray and ray.is_initialized())); print('MODULES', *sorted(sys.modules))"
HEAVY = {"deepspeed", "wandb", "tensorboard", "torch.utils.tensorboard", "matplotlib", "stable_baselines3", "ray", "ale_py"}
BY_TORCHRL = {"ray"} if find_spec("ray") else set()  # with its replay buffers, where Ray is installed


def test_a_run_killed_resumed_stopped_by_ctrl_c_and_resumed_equals_one_that_never_stopped(tmp_path: Path, strata: Command):
    folder = tmp_path / "run"
    options = [*(option for option in TINY if "env_steps" not in option), "train.env_steps=100000"]
    killed = start(*options, f"hydra.run.dir={folder}")
    seen = wait_for_step(killed, 44)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()

    saved = CheckpointStore(folder / "checkpoints").latest()
    assert saved is not None, "a whole checkpoint"
    at = int(saved.name.removeprefix("step_"))
    assert seen - at <= 16, "at most one checkpoint interval is lost"
    assert all(fault(path, FILES) is None for path in (folder / "checkpoints").glob("step_*")), "what bears a name is whole"
    list(ShardReader(folder / "replay", EnvSpec.from_dict(load_meta(saved)["spec"])).episodes())  # raises where one is torn

    resumed = start(f"resume={folder}", script=LEAVING)
    stopped_after = wait_for_step(resumed, seen + 8)
    resumed.send_signal(signal.SIGINT)
    out, error = resumed.communicate()
    assert resumed.returncode == 0, error
    assert f"going on from step_{at:09d}, at {at} env steps" in error and "anew" not in error
    stop = int(re.search(r"Stopped at (\d+) env steps; go on with: python run\.py resume=", out)[1])  # type: ignore[index]
    assert stop >= stopped_after and f"python run.py resume={folder}\n" in out
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == stop
    loaded = set(out.splitlines()[-1].split()[1:])
    assert "RAY False" in out, "nothing of it is started, wherever it is installed"
    assert "agent.trainer" in loaded and not (HEAVY - BY_TORCHRL) & loaded, "a plain local run pays for none of them"

    end = (stop // 16 + 2) * 16
    answer = strata(f"resume={folder}", f"train.env_steps={end}")
    assert answer.code == 0 and f"at {stop} env steps" in answer.error
    steps = [int(row["env_steps"]) for row in read_metrics(folder)]
    assert all(after > before for before, after in pairwise(steps)) and steps[-1] == end
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == end

    straight = tmp_path / "straight"
    assert strata(*options, f"train.env_steps={end}", f"hydra.run.dir={straight}").code == 0
    assert_same_run(folder, straight, f"step_{end:09d}")


def assert_same_run(left: Path, right: Path, checkpoint: str) -> None:
    """Two runs came to the same, bit for bit: weights, moments, random states, episodes under way, curriculum, replay."""
    one, other = (folder / "checkpoints" / checkpoint for folder in (left, right))
    assert same_tensors(load_file(one / "model.safetensors"), load_file(other / "model.safetensors"))
    ours, theirs = load_training(one), load_training(other)
    assert same_tensors(ours.tensors, theirs.tensors)
    assert ours.arrays.keys() == theirs.arrays.keys()
    assert all(np.array_equal(value, theirs.arrays[name]) for name, value in ours.arrays.items())
    counters = ("env_steps", "updates", "owed", "episodes", "next_log", "next_checkpoint")
    for name in (*counters, "curriculum", "task_rng", "replay_rng"):
        assert ours.state[name] == theirs.state[name], name


def test_help_says_what_there_is_and_ends_well(strata: Command):
    answer = strata("--help")
    assert answer.code == 0 and answer.error == ""
    for said in (
        "job: audit, check, compare, dream, evaluate, export, plan, pretrain, train",
        "python run.py resume=runs/FOLDER",
        "env_steps: 40000",
        "model: base, debug",
    ):
        assert said in answer.out, said


def test_help_and_bad_overrides_are_answered_without_loading_pytorch():
    looking = "import sys, run\ntry: run.main()\nfinally: print('MODULES', *sorted(sys.modules))"
    for argument, code in (("--help", 0), ("trian.env_steps=1", 2)):
        process = start(argument, script=looking)
        out, _ = process.communicate()
        loaded = set(out.splitlines()[-1].split()[1:])
        assert process.returncode == code and "agent.config" in loaded
        assert not {"torch", "transformers", "torchrl", "gymnasium"} & loaded


def test_a_sweep_skips_what_is_finished_and_goes_on_with_what_is_not(tmp_path: Path, strata: Command):
    sweep = ["-m", *TINY, "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweep.subdir=seed-${seed}"]
    assert strata(*sweep).code == 0
    done, died = tmp_path / "sweep" / "seed-1", tmp_path / "sweep" / "seed-2"
    (died / "summary.json").unlink()
    shutil.rmtree(died / "checkpoints")  # before its first checkpoint
    before = files(done)
    answer = strata(*sweep)
    assert answer.code == 0 and f"{done} is finished already: skipped" in answer.out
    assert files(done) == before and json.loads((died / "summary.json").read_text())["env_steps"] == 64


def test_a_run_that_fails_does_not_end_the_sweep_but_its_exit_code_tells(tmp_path: Path, strata: Command):
    sweep = ["-m", *TINY, "train.batch=0,4", f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweep.subdir=batch-${train.batch}"]
    answer = strata(*sweep)
    assert answer.code == 2 and (tmp_path / "sweep" / "batch-4" / "summary.json").is_file()
    told = answer.error.strip().splitlines()
    assert "train.batch=0" in told[0] and "batch-0; give the same command" in told[-1]


# -- jobs on a finished run ----------------------------------------------------------------------------------------------


def test_a_finished_run_resumed_says_so_and_changes_no_figure(finished: Path, tmp_path: Path, strata: Command):
    folder = shutil.copytree(finished, tmp_path / "run")
    answer = strata(f"resume={folder}")
    assert answer.code == 0 and "training is finished already" in answer.error
    assert (folder / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    one, other = (json.loads((path / "summary.json").read_text()) for path in (folder, finished))
    assert one["tasks"] == other["tasks"] and one["updates"] == other["updates"]


def test_an_agent_is_evaluated_without_repeating_what_it_was_trained_with(finished: Path, tmp_path: Path, strata: Command):
    before = files(finished)
    answer = strata("job=evaluate", f"checkpoint={finished}", "eval.episodes=1", f"hydra.run.dir={tmp_path / 'out'}")
    assert answer.code == 0, answer.error
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    summary = json.loads((finished / "summary.json").read_text())
    assert found["tasks"] == summary["tasks"]
    assert found["novelty"].keys() == found["tasks"].keys() == summary["novelty"].keys()
    assert all(0 <= row["unlike"] <= 1 for row in found["novelty"].values())
    assert files(finished) == before


def test_the_director_as_it_comes_is_trained_evaluated_and_resumed(tmp_path: Path, strata: Command):
    options = [word for word in TINY if not word.startswith(("hierarchy.", "eval.episodes"))]
    small = [
        "hierarchy.horizon=4",
        "hierarchy.starts=4",
        "hierarchy.actor_critic.hidden=16",
        "eval.episodes=2",
        "eval.goal_episodes=1",
    ]
    answer = strata("hierarchy=director", *options, *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert answer.code == 0, answer.error
    config = yaml.safe_load((ROOT / "configs" / "hierarchy" / "director.yaml").read_text(encoding="utf-8"))
    used = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))["hierarchy"]
    assert all(used[part] == config[part] for part in ("period", "goals", "manager", "worker"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    (row,) = summary["tasks"].values()
    assert row["goals"].keys() == {"shuffled", "zeroed"} and summary["goals"]["DoorKey-5x5"]["segments"] >= 1
    assert {"explorer/entropy", "manager/hindsight", "goal/heard"} <= set().union(*read_metrics(tmp_path / "run"))
    assert strata(f"resume={tmp_path / 'run'}", "train.env_steps=80").code == 0
    assert load_meta(CheckpointStore(tmp_path / "run" / "checkpoints").latest() or tmp_path)["env_steps"] == 80


def test_an_agent_is_evaluated_the_way_it_was_in_training_but_for_what_is_given(finished: Path, tmp_path: Path, strata: Command):
    path = shutil.copytree(finished / "checkpoints" / "step_000000064", tmp_path / "agent")
    (path / "manifest.json").unlink()
    meta = json.loads((path / "agent.json").read_text())
    meta["config"]["eval"] |= {"policy": "greedy", "episodes": 3, "fate": 1}  # as if trained with a recipe that says so
    (path / "agent.json").write_text(json.dumps(meta))

    def evaluated(*given: str) -> dict[str, Any]:
        answer = strata("job=evaluate", f"checkpoint={path}", *given, f"hydra.run.dir={tmp_path / 'out'}")
        assert answer.code == 0 and "it is read without its keys eval.fate" in answer.error, answer.error
        (result,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tasks"].values()
        return result

    result = evaluated()
    assert result["episodes"] == 3
    assert (result["success"], result["return"]) == (result["success_greedy"], result["return_greedy"])
    assert evaluated("eval.episodes=2", "eval.policy=sample")["episodes"] == 2


def test_what_is_given_beside_a_checkpoint_counts(finished: Path, tmp_path: Path, strata: Command):
    given = ["eval.episodes=2", "env.tasks=[DoorKey-6x6]", "env.kwargs.max_steps=3", f"hydra.run.dir={tmp_path / 'out'}"]
    answer = strata("job=evaluate", f"checkpoint={finished}", *given)
    assert answer.code == 0, answer.error
    (result,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tasks"].items()
    assert result[0] == "DoorKey-6x6" and result[1]["episodes"] == 2 and result[1]["length"] == 3


def test_an_evaluation_may_be_written_into_the_runs_own_folder(finished: Path, tmp_path: Path, strata: Command):
    folder = shutil.copytree(finished, tmp_path / "run")
    assert strata("job=evaluate", f"checkpoint={folder}", "eval.episodes=1", f"hydra.run.dir={folder}").code == 0
    after = files(folder)
    assert after.pop("evaluation.json") and after == files(finished)


def test_a_key_that_the_environment_alone_knows_needs_no_plus_sign():
    given = ["env.kwargs.size=6", "env.modalities.image=grid", "env.kwargs={a: 1}", "+env.kwargs.a=1", "env.id=a", "seed=1"]
    given += ["env.modalities.pair.0.choice=vector", "env.modalities.Größe 1/2=text:static"]
    expected = [
        "++env.kwargs.size=6",
        "++env.modalities.image=grid",
        "++env.kwargs={a: 1}",
        "+env.kwargs.a=1",
        "env.id=a",
        "seed=1",
        "++env.modalities.pair.0.choice=vector",
        "++env.modalities={Gr%C3%B6%C3%9Fe%201%2F2: text:static}",
    ]
    assert run.free_arguments(given) == expected


def test_the_readme_shows_how_a_trained_agent_is_used(finished: Path):
    blocks = re.findall(r"(?:^    .*\n|^\n)+", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    (code,) = [textwrap.dedent(block) for block in blocks if "Agent.load" in block]
    code = code.replace('"runs/FOLDER"', repr(str(finished))).replace("while True:", "for _ in range(5):")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["action"].shape == (1,) and set(names["step"].obs) == set(names["observation"])


def test_a_strangers_environment_is_played_by_its_id_alone(tmp_path: Path, strata: Command, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    own = [option for option in TINY if "env.tasks" not in option and "max_steps" not in option]
    answer = strata("env.id=their_package:TheirEnv-v0", "++env.kwargs.pay=7", *own, f"hydra.run.dir={tmp_path / 'run'}")
    assert answer.code == 0, answer.error
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["env"]["suite"], saved["env"]["tasks"], saved["env"]["reward"]) == (None, None, "raw"), "nothing of DoorKey's"
    assert saved["env"]["holdout"] is False and saved["train"]["stop_at_mastery"] is False
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["env_steps"] == 64 and summary["tasks"]["TheirEnv-v0"]["return"] == 7.0


def test_an_id_alone_means_the_recipe_for_any_environment_and_an_id_beside_a_recipe_does_not():
    assert run.recipe_arguments(["env.id=a", "seed=1"]) == ["env.id=a", "experiment=any", "seed=1"]
    assert run.recipe_arguments(["env.id=a", "--cfg", "job"]) == ["env.id=a", "experiment=any", "--cfg", "job"]
    for beside in ("env=cartpole", "experiment=cartpole", "resume=runs/a", "checkpoint=runs/a"):
        assert run.recipe_arguments(["env.id=a", beside]) == ["env.id=a", beside]
    assert run.recipe_arguments(["seed=1"]) == ["seed=1"]
    assert run.recipe_arguments(["env.suite=mine:tasks"]) == ["env.suite=mine:tasks", "experiment=any"]
    for shipped in (["env.suite=multiroom"], ["env.suite=mine:tasks", "env=any"]):
        assert run.recipe_arguments(shipped) == shipped


THEIRS = """
import gymnasium as gym, numpy as np

class TheirEnv(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
    def __init__(self, pay=1): self.pay = pay
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.full(3, self.t / 5, np.float32), float(self.pay * (self.t == 5)), self.t == 5, False, {}

gym.register("TheirEnv-v0", entry_point="their_package:TheirEnv")
"""


# -- bad input -----------------------------------------------------------------------------------------------------------


def assert_refused(answer: Answer, *said: str) -> None:
    """Exit code 2 and one line on stderr that says all of `said`."""
    assert answer.code == 2, answer
    lines = answer.error.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.error
    assert "Traceback" not in answer.out + answer.error
    for part in said:
        assert part in lines[0], lines[0]


def test_bad_input_to_a_process_is_one_sentence_and_exit_code_2():
    process = start("trian.env_steps=1")
    out, error = process.communicate()
    assert_refused(Answer(process.returncode, out, error), "trian")
    assert out == ""


WRONG = {
    "an unknown key": (["train.env_stpes=1"], ["train.env_stpes"]),
    "an unknown key of a group": (["model.widht=8"], ["model.widht"]),
    "an unknown key added by force": (["+train.speed=1"], ["speed"]),
    "a word for a number": (["train.env_steps=many"], ["train.env_steps", "many"]),
    "a fraction for a whole number": (["train.batch=1.5"], ["train.batch", "1.5"]),
    "a number for yes or no": (["train.stop_at_mastery=maybe"], ["train.stop_at_mastery", "maybe"]),
    "a list for a number": (["model.lr=[1,2]"], ["model.lr"]),
    "no value": (["train.env_steps"], ["train.env_steps"]),
    "an unknown job": (["job=compete"], ["job", "compete"]),
    "an unknown job by its name": (["job.name=compete"], ["job 'compete' is unknown", "train, evaluate, dream"]),
    "an unknown model": (["model=xxl"], ["model", "xxl", "debug"]),
    "an unknown curriculum": (["curriculum=random"], ["curriculum", "random", "sequential"]),
    "an unknown curriculum by its name": (["curriculum.name=random"], ["curriculum.name 'random' is unknown"]),
    "an unknown hierarchy": (["hierarchy=boss"], ["hierarchy", "boss", "flat"]),
    "an unknown hierarchy by its name": (["hierarchy.name=boss"], ["hierarchy.name 'boss' is unknown"]),
    "an unknown experiment": (["experiment=pong"], ["experiment", "pong", "cartpole"]),
    "an unknown environment": (["env=any", "env.id=CartPool-v1"], ["env.id=CartPool-v1 is unknown", "CartPole-v1"]),
    "an unknown suite": (["env.suite=doorkeys"], ["env.suite=doorkeys is unknown", "doorkey"]),
    "an unknown task": (["env.tasks=[DoorKey-7x7]"], ["DoorKey-7x7", "DoorKey-8x8"]),
    "an unknown success rule": (["env.success=applause"], ["env.success"]),
    "an unknown device": (["device=nonsense"], ["device=nonsense is not available here", "device=auto"]),
    "a device that is not there": (["device=cuda:97"], ["device=cuda:97 is not available here"]),
    "an unknown engine": (["sharding.engine=warp"], ["sharding.engine 'warp' is unknown"]),
    "an unknown loss": (["hierarchy.actor_critic.loss=sac"], ["hierarchy.actor_critic.loss must be ppo or a2c"]),
    "an unknown logger": (["logger.wandb=sometimes"], ["logger.wandb", "offline"]),
    "numbers that do not fit": (["env.num_envs=64"], ["train.random_steps=32 is too few"]),
    "no environment": (["env.num_envs=0"], ["env.num_envs"]),
    "a job without its agent": (["job=evaluate"], ["job=evaluate needs checkpoint="]),
    "a checkpoint that is not there": (["job=evaluate", "checkpoint=nowhere"], ["nowhere does not exist"]),
    "a checkpoint and a recipe": (["job=evaluate", "checkpoint={run}", "experiment=cartpole"], ["takes no experiment="]),
    "a checkpoint that is none": (["job=evaluate", "checkpoint={empty}"], ["is not a Strata checkpoint"]),
    "another model than the checkpoint's": (["job=evaluate", "checkpoint={run}", "model=s"], ["is of another model"]),
    "another environment": (["job=dream", "checkpoint={run}", "env=cartpole"], ["for other observations or actions"]),
    "resuming what is no run": (["resume={empty}"], ["is not a run folder"]),
    "resuming what is not there": (["resume=nowhere"], ["resume=nowhere is not a run folder"]),
    "resuming with another group": (["resume={run}", "model=s"], ["model=s cannot be changed when resuming"]),
    "resuming with another recipe": (["resume={run}", "experiment=cartpole"], ["cannot be changed when resuming"]),
    "resuming with an unknown key": (["resume={run}", "train.speed=3"], ["train.speed"]),
    "resuming with other tasks": (["resume={run}", "env.tasks=[DoorKey-6x6]"], ["trained on the tasks DoorKey-5x5"]),
    "resuming with another width": (["resume={run}", "model.width=32"], ["is of another model"]),
    "resuming a sweep": (["-m", "resume={run}", "seed=1,2"], ["hydra.sweep.dir"]),
    "a folder that holds a run": (["hydra.run.dir={run}"], ["holds a run already", "resume="]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_sentence_and_nothing_on_disk_is_touched(name: str, finished: Path, tmp_path: Path, strata: Command):
    arguments, said = WRONG[name]
    (tmp_path / "empty").mkdir()
    before = files(finished)
    keys = {argument.partition("=")[0] for argument in arguments}
    own = [] if keys & {"resume", "job"} else TINY
    folder = [] if keys & {"resume", "hydra.run.dir"} else [f"hydra.run.dir={tmp_path / 'out'}"]
    answer = strata(*own, *(argument.format(run=finished, empty=tmp_path / "empty") for argument in arguments), *folder)
    assert_refused(answer, *said)
    assert files(finished) == before
    assert [name for name in files(tmp_path) if not name.startswith("multirun")] == [], "and no trace of a run is left"


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated shard": (lambda run: cut(run / "replay" / shard_names(run / "replay")[0]), "cannot be used"),
    "a missing shard": (lambda run: (run / "replay" / shard_names(run / "replay")[0]).unlink(), "is missing"),
    "a config that is no YAML": (lambda run: (run / "config.yaml").write_text("train: [1,\n"), "config.yaml cannot be read"),
    "a config that is a list": (lambda run: (run / "config.yaml").write_text("- 1\n"), "config.yaml"),
    "a config with a value of another version": (lambda run: (run / "config.yaml").write_text("train: {batch: many}\n"), "batch"),
    "torn checkpoints": (lambda run: cut(*run.glob("checkpoints/*/model.safetensors")), "no whole checkpoint"),
}


def cut(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_is_refused_in_one_sentence_and_left_as_it_is(name: str, finished: Path, tmp_path: Path, strata: Command):
    breaks, said = BROKEN[name]
    folder = shutil.copytree(finished, tmp_path / "run")
    breaks(folder)
    before = files(folder)
    answer = strata(f"resume={folder}")
    assert answer.code == 2 and "Traceback" not in answer.error
    (line,) = [line for line in answer.error.splitlines() if line.startswith("error: ")]
    assert said in line
    assert files(folder) == before


def test_ctrl_c_outside_of_training_ends_quietly(monkeypatch: pytest.MonkeyPatch, strata: Command):
    def interrupted(*args: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.jobs.run_job", interrupted)
    answer = strata(*TINY)
    assert answer.code == 130 and answer.error == "interrupted\n"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A run in this process may have set another number, which changes the last bits of sums."""
    torch.set_num_threads(1)
