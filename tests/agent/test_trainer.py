"""The training loop: when it acts at random, learns, logs, saves, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.build import choose_device
from agent.checkpoint import CheckpointStore
from agent.checkpointing import restore, save
from agent.config import RunConfig
from agent.settings import check_settings
from agent.trainer import Trainer
from envs.errors import UserError
from hierarchy.config import ActorCriticConfig
from hierarchy.flat import FlatPolicy
from tests.agent.tiny import CARTPOLE, DOORKEY, LINE, play, same_tensors, tiny_config

SURE = dict(id="tests.agent.tiny:Wage-v0", kwargs={"limit": 1}, success="return>=-9", holdout=False)  # one step, always a success


class Log:
    """A logger, a progress bar and a saver that take notes."""

    def __init__(self, trainer: Trainer, stop_at: int | None = None) -> None:
        self.trainer, self.stop_at = trainer, stop_at
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.updates: list[int] = []
        self.saved: list[int] = []

    @property
    def logged(self) -> list[int]:
        return [steps for steps, _ in self.lines]

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        self.lines.append((env_steps, values))

    def update(self, env_steps: int, updates: int, task: str, success: Mapping[str, float]) -> None:
        self.updates.append(updates)
        self.trainer.stopping = env_steps == self.stop_at

    def save(self) -> Path:
        self.saved.append(self.trainer.env_steps)
        return Path()


def trained(
    config: RunConfig, folder: Path, stop_at: int | None = None, losses: Callable[[int], float] = lambda update: 1.0
) -> tuple[Trainer, Log]:
    """A run to its end whose updates cost nothing: the n-th says that its loss is `losses(n)`."""
    trainer = Trainer(config, folder)
    learner = trainer.learner

    def update(batch: Any, timer: Any, policy: bool = True, look: bool = False) -> dict[str, float]:
        learner.updates += 1
        return {"model/total": losses(learner.updates), **({"policy/entropy": 2.0} if policy else {})}

    learner.update = update  # type: ignore[method-assign, assignment]
    log: Any = Log(trainer, stop_at)
    trainer.run(log, log, log.save)
    return trainer, log


def test_it_acts_at_random_until_it_has_seen_enough_and_then_by_its_policy(tmp_path: Path):
    trainer = Trainer(tiny_config(LINE), tmp_path)
    act, modes = trainer.agent.act, []

    def recording(obs: Any, first: Any, state: Any, mode: str, grow: bool, plan: bool) -> Any:
        modes.append(mode)
        return act(obs, first, state, mode, grow, plan)

    trainer.agent.act = recording  # type: ignore[method-assign, assignment]
    play(trainer, 44)
    assert modes == ["random"] * 8 + ["sample"] * 3, "32 random steps of four environments"


def test_the_model_warms_up_alone_and_then_every_eighth_env_step_earns_an_update(tmp_path: Path):
    _, log = trained(tiny_config(LINE), tmp_path)
    # Four steps at a time. At 32 learning begins: two warm-up updates, and half an update is owed; at 36 the first whole one.
    assert log.updates == [0] * 7 + [2 + (n + 1) // 2 for n in range(17)]
    lines = dict(log.lines)
    assert "policy/entropy" not in lines[32] and lines[48]["policy/entropy"] == 2.0


def test_several_updates_a_step_are_made_when_they_are_earned(tmp_path: Path):
    _, log = trained(tiny_config(LINE, train={"update_every": 1.6}), tmp_path)
    assert log.updates[7:11] == [2 + 2, 2 + 5, 2 + 7, 2 + 10], "2.5 a step"


@pytest.mark.parametrize(
    ("every", "lines"), [(16, [16, 32, 48, 64, 80, 96]), (10, [12, 20, 32, 40, 52, 60, 72, 80, 92, 96]), (1000, [96])]
)
def test_a_line_is_logged_every_so_many_steps_and_one_at_the_end_and_none_twice(tmp_path: Path, every: int, lines: list[int]):
    _, log = trained(tiny_config(LINE, train={"log_every": every}), tmp_path)
    assert log.logged == lines


def test_a_line_holds_means_since_the_last_success_times_and_the_curriculum(tmp_path: Path):
    _, log = trained(tiny_config(LINE), tmp_path, losses=float)
    lines = dict(log.lines)
    assert lines[32]["model/total"] == 1.5 and lines[48]["model/total"] == 3.5, "of the updates 1 and 2, and of 3 and 4"
    also = {"train/success/Line-v0", "time/acting", "time/sampling", "curriculum/p/Line-v0", "updates", "seconds", "replay/steps"}
    assert also <= set(lines[96])


def test_a_checkpoint_is_saved_every_so_many_steps(tmp_path: Path):
    assert trained(tiny_config(LINE), tmp_path)[1].saved == [48, 96]


def test_it_ends_when_its_budget_is_spent(tmp_path: Path):
    trainer, _ = trained(tiny_config(LINE), tmp_path)
    assert trainer.env_steps == 96 and trainer.finished and not trainer.mastered


def test_it_ends_as_soon_as_the_hardest_task_is_mastered(tmp_path: Path):
    config = tiny_config(SURE, train={"env_steps": 160})
    trainer, log = trained(config, tmp_path / "stops")
    assert trainer.env_steps == 100, "a hundred episodes of one step"
    assert trainer.summary()["steps_to_threshold"] == {"Wage-v0": 100} and log.logged[-1] == 100
    trainer, _ = trained(replace(config, train=replace(config.train, stop_at_mastery=False)), tmp_path / "goes on")
    assert trainer.env_steps == 160 and trainer.summary()["steps_to_threshold"] == {"Wage-v0": 100}


def test_practice_masters_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FlatPolicy, "practice", lambda self, state: torch.tensor([True, True, True, False]))
    trainer, log = trained(tiny_config(SURE, train={"env_steps": 160}), tmp_path)
    task = trainer.tracker.tasks[trainer.tasks.hardest.id]
    assert (task.episodes, task.practised, len(task.judged)) == (160, 120, 40) and trainer.env_steps == 160, "not mastered"
    assert {log.lines[-1][1][f"train/{kind}/{trainer.tasks.hardest.id}"] for kind in ("judged", "practice")} == {1.0}


def test_it_updates_at_one_pace_until_thirty_episodes_went_well_and_at_another_from_then_on(tmp_path: Path):
    config = tiny_config(SURE)
    config.train.update_every_first, config.train.update_every = 4, 16
    _, log = trained(config, tmp_path)
    # Four episodes a step: the eighth step brings the 32nd success, which is when learning begins; a quarter is earned a step.
    assert log.updates[6:16] == [0, 2, 2, 2, 3, 3, 3, 3, 4, 4]


def test_when_stopped_between_steps_no_whole_update_is_owed(tmp_path: Path):
    trainer, log = trained(tiny_config(LINE, train={"update_every": 1.6}), tmp_path, stop_at=40)
    assert trainer.env_steps == 40 and trainer.stopping and not trainer.finished
    assert trainer.learner.updates == 2 + 7 and trainer.owed == pytest.approx(0.5)
    assert log.logged == [16, 32, 40], "what it has done since the last line is not lost"


@pytest.mark.parametrize("updates", [1, 3, 6], ids=["in the warm-up", "in the first step's updates", "in a later step's"])
def test_stopped_while_learning_it_ends_at_once_and_does_the_rest_when_resumed(tmp_path: Path, updates: int):
    config = tiny_config(LINE, train={"update_every": 1.6, "env_steps": 48})
    straight, _ = trained(config, tmp_path / "straight")
    stopped = Trainer(config, tmp_path / "stopped")
    update = stopped.learner.update

    def stopping(*given: Any) -> Any:
        stopped.stopping = stopped.learner.updates + 1 == updates
        return update(*given)

    stopped.learner.update = stopping  # type: ignore[method-assign, assignment]
    log: Any = Log(stopped)
    log.update = lambda *given: None
    stopped.run(log, log, log.save)
    assert stopped.learner.updates == updates and stopped.stopping
    path = save(stopped, CheckpointStore(tmp_path / "stopped" / "checkpoints"))
    resumed = Trainer(config, tmp_path / "stopped")
    restore(resumed, path)
    log = Log(resumed)
    resumed.run(log, log, log.save)
    assert (resumed.env_steps, resumed.learner.updates, resumed.owed) == (48, straight.learner.updates, straight.owed)
    assert log.updates[0] >= updates


def test_a_success_that_random_play_always_has_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trained(tiny_config(SURE), tmp_path / "sure")
    (said,) = [record.getMessage() for record in caplog.records if "random play" in record.getMessage()]
    assert (
        said.startswith("env.success=return>=-9 held in 100 % of 32 episodes of random play") and "env.success=info:KEY" in said
    )
    caplog.clear()
    trained(tiny_config(SURE | {"success": "return>=0"}), tmp_path / "even")  # half of the episodes
    trained(tiny_config(LINE | {"success": "return>=0"}), tmp_path / "few")  # all of them, but they are few
    assert "random play" not in caplog.text


def test_falling_over_is_no_success_of_cartpole_and_the_warning_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trained(tiny_config(CARTPOLE | {"success": "positive_reward"}, train={"random_steps": 400, "env_steps": 400}), tmp_path)
    assert "env.success=positive_reward held in 100 % of" in caplog.text


def test_a_loss_that_is_no_number_ends_the_run_with_what_and_where_and_the_way_out(tmp_path: Path):
    with pytest.raises(UserError, match=r"model/total is not finite at 48 env steps.*resume=.*lower model\.lr"):
        trained(tiny_config(LINE), tmp_path, losses=lambda update: float("nan") if update == 4 else 1.0)


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path: Path):
    def run(seed: int, name: str) -> tuple[list[Any], Any]:
        trainer = Trainer(tiny_config(DOORKEY, seed=seed), tmp_path / name)
        losses = play(trainer, 48)
        return [losses, [task.seed for task in trainer.collector.playing]], trainer.engine.weights()

    (one, weights), (same, same_weights), (other, other_weights) = run(1, "a"), run(1, "b"), run(2, "c")
    assert one == same and same_tensors(weights, same_weights)
    assert one[1] != other[1] and not same_tensors(weights, other_weights)


def test_more_updates_do_not_shift_which_tasks_are_played(tmp_path: Path):
    def tasks(name: str, **train: Any) -> list[int | None]:
        trainer, _ = trained(tiny_config(LINE, train=train), tmp_path / name)
        return [task.seed for task in trainer.collector.playing]

    assert tasks("few", random_steps=96) == tasks("many", random_steps=96, warmup_updates=20)


def test_a_summary_holds_what_the_contract_says(tmp_path: Path):
    trainer, _ = trained(tiny_config(LINE), tmp_path)
    summary = trainer.summary()
    assert {"env_steps": 96, "updates": 10, "tasks": {}}.items() <= summary.items()
    assert summary["steps_to_threshold"] == summary["seconds_to_threshold"] == {"Line-v0": None}
    assert summary["training"]["Line-v0"]["episodes"] == trainer.replay.episodes > 0 and summary["wall_seconds"] > 0


def changed(config: RunConfig, **changes: Mapping[str, Any]) -> RunConfig:
    return replace(config, **{group: replace(getattr(config, group), **keys) for group, keys in changes.items()})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": {"random_steps": 27}}, r"train\.random_steps=27 is too few .* give 28 or more"),
        ({"env": {"num_envs": 8}}, r"train\.random_steps=32 .* env\.num_envs=8 environments: give 56 or more"),
        ({"replay": {"capacity": 31}}, r"replay\.capacity=31 .* give 32 or more"),
        ({"train": {"burn_in": -1}}, r"train\.burn_in=-1 has to be 0 or more"),
        ({"hierarchy": {"starts": 9}}, r"hierarchy\.starts=9 cannot be more than train\.length=8"),
        ({"eval": {"policy": "best"}}, r"eval\.policy=best is unknown"),
        ({"model": {"image_patch": 0}}, r"model\.image_patch=0 is too few: give 1 or more"),
        ({"model": {"image_codes": 0}}, r"model\.image_codes=0 is too few: give 1 or more"),
        ({"model": {"text_words": 0}}, r"model\.text_words=0 is too few: give 1 or more"),
        ({"model": {"ensemble": 1}}, r"model\.ensemble=1 cannot disagree: give 2 or more heads, or 0 for none"),
        ({"hierarchy": {"explore": 0.1}}, r"hierarchy\.explore=0\.1 needs an ensemble that may disagree"),
        ({"hierarchy": {"discovery": -0.1}}, r"hierarchy\.discovery=-0\.1 is too small: give 0 or more"),
        ({"model": {"precision": "fp8"}}, r"model\.precision=fp8 is unknown; choose one of fp32, bf16"),
        ({"model": {"modality_dropout": 1.5}}, r"model\.modality_dropout=1\.5 is a share: give 0 to 1"),
        ({"model": {"table_size": 0}}, r"model\.table_size=0 is too few"),
        (
            {
                "sharding": {"engine": "deepspeed", "stage": 3, "gather": "step"},
                "hierarchy": {"planner": "goals", "plan_training": True},
            },
            r"hierarchy\.plan_training=true",
        ),
        ({"model": {"attention_heads": 7}}, r"multiple of four times model\.attention_heads=7"),
        ({"model": {"text_heads": -1}}, r"model\.text_heads=-1 is too small: give 0 or more"),
        ({"model": {"image_radius": -0.1}}, r"model\.image_radius=-0\.1 is too small: give 0 or more"),
        ({"hierarchy": {"actor_critic": ActorCriticConfig(min_std=2.0)}}, r"actor_critic\.min_std=2\.0 .*max_std=1\.0"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused_before_anything_begins(
    tmp_path: Path, changes: dict[str, dict[str, Any]], sentence: str
):
    with pytest.raises(UserError, match=sentence):
        Trainer(changed(tiny_config(LINE), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_least_numbers_that_fit_together_do_run(tmp_path: Path):
    config = changed(tiny_config(LINE), train={"random_steps": 28}, replay={"capacity": 32}, hierarchy={"starts": 8})
    check_settings(config)
    assert play(Trainer(config, tmp_path), 48)


def test_only_grids_that_have_maps_are_shown_what_came_before_a_sequence(tmp_path: Path):
    for name, env, before in (("grid", DOORKEY, 5), ("numbers", CARTPOLE, 0)):
        trainer = Trainer(tiny_config(env, train={"burn_in": 5}), tmp_path / name)
        assert play(trainer, 48) and trainer.mix.before == before


@pytest.mark.parametrize("batch", [1, 2, 5, 6])
def test_any_batch_can_be_learned_from_whatever_the_number_of_minibatches(tmp_path: Path, batch: int):
    torch.manual_seed(0)
    assert play(Trainer(tiny_config(LINE, train={"batch": batch}), tmp_path), 48)


def test_what_images_are_taken_for_is_logged(tmp_path: Path):
    wrapper = {"name": "minigrid.wrappers:RGBImgPartialObsWrapper", "kwargs": {"tile_size": 8}}
    _, log = trained(tiny_config(DOORKEY | {"wrappers": [wrapper]}), tmp_path)
    for _, values in log.lines:
        assert values["model/codes/image"] == int(values["model/codes/image"]) > 1
        assert 0 <= values["model/quantisation/image"] < 255 * 0.03, "nothing is farther off than model.image_radius yet"


def test_several_processes_have_an_accelerator_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device=cuda:0 is one for 2 processes: give device=cuda"):
        choose_device("cuda:0")
