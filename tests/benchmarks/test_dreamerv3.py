"""DreamerV3 beside ours: its settings, our environments as sheeprl plays them, what is counted, its rows in the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from agent.metrics import SuccessTracker
from benchmarks import doorkey, doorkey_alone, dreamerv3, ours
from benchmarks.dreamerv3 import dreamerv3_config, dreamerv3_run, installed, is_installed
from benchmarks.dreamerv3_config import OBSERVATION, DreamerV3Config, sheeprl_overrides
from benchmarks.dreamerv3_env import SHARED, Ledger, Mastered, PeerEnv
from benchmarks.dreamerv3_training import DreamerV3Agent
from benchmarks.harness import Context, Options
from benchmarks.peer_encoding import Encoder
from benchmarks.store import Results
from benchmarks.training import Metrics, RunError
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.errors import UserError
from envs.splits import split_of

TASK = "DoorKey-5x5"
LEFT = 0  # turns, for ever


@pytest.fixture
def env():
    made = PeerEnv("doorkey", TASK)
    yield made
    made.close()


@pytest.fixture
def ledger(tmp_path):
    ticks = iter(range(1000))
    made = Ledger(SuccessTracker([TASK], 4, 0.75), SuccessRule.parse("positive_reward"), tmp_path / "m", 10, lambda: next(ticks))
    SHARED.ledger = made
    yield made
    SHARED.ledger = None


# Settings


def test_sheeprl_is_told_the_budget_the_batch_the_ratio_and_our_environment():
    told = sheeprl_overrides(DreamerV3Config(sheeprl=("algo.gamma=0.9",)), 7, Path("/tmp/it's a run"))
    for word in (
        "exp=dreamer_v3_5",
        "algo=dreamer_v3_5_1M",
        "seed=7",
        "algo.total_steps=20000",
        "algo.per_rank_batch_size=16",
        "algo.per_rank_sequence_length=32",
        "algo.replay_ratio=0.0625",
        "env.wrapper={_target_:benchmarks.dreamerv3_env.PeerEnv,suite:doorkey,task:DoorKey-5x5}",
        f"algo.mlp_keys.encoder=[{OBSERVATION}]",
    ):
        assert word in told
    assert told[-1] == "algo.gamma=0.9"  # the last word counts
    parsed = {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(told)}
    assert str(parsed["log_root"]) == "/tmp/it's a run"


def test_overrides_are_typed_and_a_wrong_key_is_refused_by_name():
    assert dreamerv3_config(["max_env_steps=5000", "replay_ratio=1"], quick=False) == DreamerV3Config(
        max_env_steps=5000, replay_ratio=1.0
    )
    for word, named in (("steps=1", "dreamerv3 has no key steps"), ("num_envs=many", "dreamerv3's num_envs=many")):
        with pytest.raises(UserError, match=named):
            dreamerv3_config([word], quick=False)


def test_a_quick_run_is_another_one_and_still_learns():
    quick = dreamerv3_config([], quick=True)
    assert quick != DreamerV3Config()
    assert quick.learning_starts < quick.max_env_steps <= 200
    assert (quick.max_env_steps - quick.learning_starts) * quick.replay_ratio >= 1
    assert quick.learning_starts >= quick.num_envs * quick.length  # a sequence of each environment


# Environments


def test_sheeprl_plays_training_layouts_alone(env):
    played = set()
    env.reset(seed=3)
    for _ in range(60):
        env.reset()
        played.add(env.layout())
    assert {split_of(layout) for layout in played} == {"train"}
    assert len(played) > 20


def test_a_seed_gives_the_same_layouts_again(env):
    def layouts(seed):
        env.reset(seed=seed)
        first = env.layout()
        env.reset()
        return first, env.layout()

    assert layouts(1) == layouts(1)
    assert layouts(1) != layouts(2)


def test_it_observes_the_vector_that_the_other_peer_observes(env):
    obs, _ = env.reset(seed=0)
    config = EnvConfig(suite="doorkey", tasks=[TASK], num_envs=1)
    tasks = make_task_space(config)
    envs = make_envs(config, tasks)
    same = envs.reset([tasks.hardest.with_seed(int(np.random.default_rng(0).integers(2**31)))])
    assert np.array_equal(obs[OBSERVATION], Encoder(envs.spec)(same)[0])
    envs.close()
    assert env.observation_space.contains(obs)
    assert set(np.unique(obs[OBSERVATION])) == {0.0, 1.0}


def test_every_step_is_charged_and_an_episode_that_was_cut_off_is_no_success(env, ledger):
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, terminated, ended, _ = env.step(np.int64(LEFT))
        assert not terminated
    assert ledger.env_steps == 250  # DoorKey-5x5's own limit
    assert ledger.tracker.tasks[TASK].episodes == 1
    assert ledger.tracker.success() == {TASK: 0.0}


def test_progress_is_a_line_every_so_many_steps(ledger):
    ledger.updates = 3
    for _ in range(25):
        ledger.step()
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [10, 20]
    assert lines[0]["updates"] == 3


def test_training_ends_with_the_episode_that_reaches_the_threshold(ledger):
    ledger.env_steps = 30
    for won in (True, True, False):
        ledger.episode(TASK, float(won), won, 10)
    with pytest.raises(Mastered):
        ledger.episode(TASK, 1.0, True, 10)  # three of four
    assert ledger.tracker.steps_to_threshold() == {TASK: 30}
    assert not issubclass(Mastered, Exception)  # sheeprl starts an environment again that raises one


# The trained agent


class Player:
    """Stands in for sheeprl's: acts by the first entries of what it observes, and writes down which episodes it was told of."""

    num_envs = 0

    def __init__(self):
        self.started = []

    def init_states(self, which=None):
        self.started.append(which)

    def get_actions(self, obs, greedy=False):
        assert obs[OBSERVATION].shape[:2] == (1, self.num_envs)
        return (obs[OBSERVATION][..., :4],)


def test_the_player_forgets_only_episodes_that_start():
    config = EnvConfig(suite="doorkey", tasks=[TASK], num_envs=3)
    tasks = make_task_space(config)
    envs = make_envs(config, tasks)
    obs = envs.reset([tasks.hardest.with_seed(seed) for seed in range(3)])
    envs.close()
    player = Player()
    agent = DreamerV3Agent(player, envs.spec)
    agent.initial_state(3)
    for first in ([True, True, True], [False, False, False], [False, True, False]):
        actions, _, _ = agent.act(obs, np.array(first), None)
    assert player.started == [None, [0, 1, 2], [1]]
    assert actions.tolist() == obs["direction"][:, 0].tolist()  # the first four entries are its one-hot
    assert actions.dtype == np.int64


# The virtual environment


def test_an_environment_is_made_again_when_its_requirements_change(tmp_path, monkeypatch):
    folder, requirements, commands = tmp_path / ".venv-x", tmp_path / "requirements.txt", []

    def run_command(command, log, stop=None):
        commands.append(command[1:3])
        folder.mkdir(exist_ok=True)

    monkeypatch.setattr(dreamerv3, "REQUIREMENTS", requirements)
    monkeypatch.setattr(dreamerv3, "run_command", run_command)
    made = ["-m", "venv"], ["-m", "pip"]
    requirements.write_text("a>=1,<2\n")
    assert installed(folder=folder) == folder / "bin" / "python"
    assert commands == [*made]
    installed(folder=folder)
    assert commands == [*made]
    requirements.write_text("a>=2,<3\n")
    assert not is_installed(folder)
    installed(folder=folder)
    assert commands == [*made, *made]


def test_what_cannot_be_installed_is_said_with_the_way_out(tmp_path, monkeypatch):
    def run_command(command, log, stop=None):
        raise RunError("exit code 1: no network")

    monkeypatch.setattr(dreamerv3, "run_command", run_command)
    with pytest.raises(UserError, match=r"no network.*\.venv-x\.log.*--only"):
        installed(folder=tmp_path / ".venv-x")
    assert not is_installed(tmp_path / ".venv-x")


def test_requirements_are_ranges_that_hold_what_ours_plays_the_environments_with():
    lines = [line for line in dreamerv3.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(">=" in line and "<" in line for line in lines)
    ours_too = Path(dreamerv3.ROOT, "pyproject.toml").read_text()
    for line in lines:
        if not line.startswith("sheeprl"):
            assert f'"{line}"' in ours_too


# Rows in the table


def record(variant, steps, success):
    figures = {
        "env_steps": 20_000,
        "updates": 1186,
        "wall_seconds": 1500.0,
        "tasks": {TASK: {"success": success, "success_greedy": 0.0, "return": 0.1, "episodes": 100, "layouts": 6}},
        "steps_to_threshold": {TASK: steps},
        "seconds_to_threshold": {TASK: None if steps is None else 200.0},
        "training": {TASK: {"success": 0.4321, "episodes": 150}},
        "reached": steps,
    }
    return {"variant": variant, "seed": 1, "error": None, "commit": "c", "figures": figures}


RECORDS = [record(doorkey_alone.OURS, 5_600, 1.0), record(doorkey_alone.DREAMERV3, None, 0.25)]


def test_a_learner_that_never_reaches_the_threshold_has_a_row_and_null():
    alone = doorkey.summarise(Options(), RECORDS)["alone"]
    assert alone["task"] == TASK
    assert alone[doorkey_alone.OURS]["steps_to_threshold"]["median"] == 5_600
    theirs = alone[doorkey_alone.DREAMERV3]
    assert theirs["steps_to_threshold"] == {"median": None, "worst": None}
    assert theirs["runs"]["1"]["training"][TASK]["success"] == 0.4321
    assert theirs["least_held_out_success"] == 0.25
    assert alone[doorkey_alone.DREAMERV3_MORE]["runs"] == {}
    json.dumps(alone, allow_nan=False)


def test_the_table_of_the_task_alone_shows_what_was_spent_and_reached():
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    failed = {**record(doorkey_alone.DREAMERV3_MORE, None, 0.0), "error": "it broke", "figures": None}
    console.print(doorkey.show(doorkey.summarise(Options(), [*RECORDS, failed])))
    text = console.export_text()
    for shown in ("DoorKey-5x5 alone", "ours-5x5", "5,600", "dreamerv3-5x5", "never", "1,186", "0.43", "0.25", "it broke"):
        assert shown in text
    assert "Curriculum" not in text  # whose learners were not asked for


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(ours, "composed_config", lambda overrides: {"given": list(overrides), "train": {"env_steps": 7}})


def asked(only, *overrides, **more):
    return Options(seeds=(1,), arguments={"only": only}, overrides=overrides, **more)


def test_dreamerv3_runs_with_as_many_updates_as_ours_and_with_four_times_as_many(plain):
    runs = doorkey.plan(asked("dreamerv3", "dreamerv3.max_env_steps=100", "train.lr=1"))
    assert [(run.variant, run.config["replay_ratio"]) for run in runs] == [("dreamerv3-5x5", 1 / 16), ("dreamerv3-5x5-4x", 1 / 4)]
    assert {run.config["max_env_steps"] for run in runs} == {100}


def test_ours_alone_gets_the_same_budget_unless_it_is_overridden(plain):
    (run,) = doorkey.plan(asked("ours-5x5", "train.env_steps=9"))
    assert run.config["given"] == ["env.tasks=[DoorKey-5x5]", "train.env_steps=20000", "train.env_steps=9"]
    (quick,) = doorkey.plan(asked("ours-5x5", quick=True))
    assert "train.env_steps=1000" in quick.config["given"]


def test_without_being_asked_for_dreamerv3_is_shown_from_the_record_and_never_run(plain, tmp_path):
    pytest.importorskip("stable_baselines3", reason="the peer comes with the bench extra")
    options = Options(seeds=(1, 2), results=tmp_path)
    assert [run.variant for run in doorkey.plan(options)] == ["ours", "ours", "peer", "peer"]
    known = dreamerv3_run(DreamerV3Config(), 1, doorkey_alone.DREAMERV3)
    Results(tmp_path, "doorkey").add({**RECORDS[1], "config": known.config})
    assert [run.variant for run in doorkey.plan(options)][4:] == ["dreamerv3-5x5"]
    for changed in (replace(options, quick=True), replace(options, fresh=True)):
        assert len(doorkey.plan(changed)) == 4


@pytest.mark.skipif(not is_installed(), reason="python -m benchmarks.doorkey --only dreamerv3 installs DreamerV3")
def test_it_trains_from_end_to_end(tmp_path):
    config = replace(dreamerv3_config([], quick=True), log_every=40, eval_episodes=1, replay_ratio=0.1)
    told: list[Metrics] = []
    context = Context(tmp_path / "a run, of a test", 1, told.append, SimpleNamespace(is_set=lambda: False))  # type: ignore[arg-type]
    summary = dreamerv3_run(config, 1, "dreamerv3").execute(context)
    assert (summary["env_steps"], summary["updates"], summary["reached"]) == (200, 4, None)
    assert summary["tasks"][TASK]["episodes"] == 1
    assert told[-1]["env_steps"] == 200
    assert summary["parameters"]["world_model"] > 500_000
