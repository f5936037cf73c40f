"""`job=check`: what is to be known of an environment before anything is trained on it."""

from __future__ import annotations

import math
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from gymnasium.utils.env_checker import check_env

from agent.config import ActingConfig, RunConfig
from agent.console import print_line, show_observations
from agent.progress import clock_time
from agent.streams import FIELDS
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from envs.building import build_environment
from envs.deadline import Deadline, TimeUp
from envs.errors import UserError
from envs.faults import FaultLedger
from envs.spaces.actions import no_actions
from envs.spaces.specs import EnvSpec
from envs.tasks import Outcome, Task

CHECKER_STEPS = 100  # times `env.step_timeout` that Gymnasium's checker may take
PLAY_STEPS = 2000  # of one environment, to find its speed
PLAY_SECONDS = 3.0
PLAY_EPISODES = 20  # that random play is to finish in all environments together, time allowing
UPDATES = 3  # timed, after one to warm up
OFTEN = 0.5  # success of random play from which the rule says little of skill


@dataclass
class CheckerReport:
    """What Gymnasium's own checker found: `failure` ended it, `notes` are its warnings."""

    failure: str = ""
    notes: list[str] = field(default_factory=list)


def check_environment(config: RunConfig, folder: Path) -> float:
    """Report on the environment of a config; answers the success of random play.

    Raises:
        UserError: it cannot be trained on, in one sentence.
    """
    tasks = make_task_space(config.env)
    for task in tasks:
        show_checker(task, run_checker(task, config))
    steps_alone, spec, alone = one_alone(config)
    show_observations(spec)
    show_memory(config, spec)  # before it is taken
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(replace(config, acting=ActingConfig()), Path(scratch))
        try:
            outcomes, steps_together = random_play(trainer)
            success = show_play(config, outcomes)
            print_line(
                f"Speed: {steps_alone:,.0f} env steps/s of one environment, {steps_together:,.0f} of {config.env.num_envs}"
            )
            show_time(config, steps_together, seconds_per_update(trainer))
        finally:
            trainer.envs.close()
    together = trainer.envs.faults
    faults = alone.counts + together.counts
    if faults:
        print_line("Faults: " + ", ".join(f"{kind} {count} times" for kind, count in faults.items()))
    doubts = ["it breaks down at times"] if alone.dropped or together.dropped else []
    if not outcomes:
        doubts.append("no episode ended in the time it had: if none ever does, give env.max_episode_steps=...")
    print_line("Verdict: it can be trained on" + (f", though {' and '.join(doubts)}" if doubts else "") + ".")
    return success


def run_checker(task: Task, config: RunConfig) -> CheckerReport:
    """Gymnasium's checker on the bare environment of a task. What it refuses may still be trained on: it is strict."""
    report = CheckerReport()
    env = build_environment(task, config.env)
    deadline = Deadline(CHECKER_STEPS * config.env.step_timeout)
    with warnings.catch_warnings(record=True) as caught, deadline:
        warnings.simplefilter("always")
        deadline.start()
        try:
            check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)
        except TimeUp:
            report.failure = f"it takes more than {deadline.seconds:g} s"
        except Exception as error:  # assertions, and whatever the environment raises
            report.failure = one_line(f"{type(error).__name__}: {error}")
        finally:
            with suppress(Exception, TimeUp):  # it may be broken, or hang here too
                deadline.start()
                env.close()
            deadline.stop()
    report.notes = list(dict.fromkeys(one_line(str(note.message)) for note in caught))
    return report


def show_checker(task: Task, report: CheckerReport) -> None:
    """Its failure in one sentence, its warnings as a list."""
    print_line(f"Gymnasium's checker on {task.id}: {report.failure or 'passed'}")
    for note in report.notes:
        print_line(f"  - {note}")


def one_alone(config: RunConfig) -> tuple[float, EnvSpec, FaultLedger]:
    """Env steps per second of one environment that plays at random, what it observes, and its faults."""
    tasks = make_task_space(config.env)
    envs = make_envs(config.env, tasks, 1)
    rng = np.random.default_rng(config.seed)
    try:
        envs.reset([tasks.hardest.with_seed(0)])
        began, steps = time.perf_counter(), 0
        while steps < PLAY_STEPS and time.perf_counter() - began < PLAY_SECONDS:
            result = envs.step(random_actions(envs.spec, rng))
            steps += 1
            if result.terminated[0] or result.truncated[0]:
                envs.reset([tasks.hardest.with_seed(steps)])
        return steps / (time.perf_counter() - began), envs.spec, envs.faults
    finally:
        envs.close()


def random_actions(spec: EnvSpec, rng: np.random.Generator, number: int = 1) -> np.ndarray:
    """Uniform actions (number, *spec.action.shape)."""
    shape = no_actions(spec.action, number).shape
    if spec.action.kind == "box":
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    return rng.integers(0, np.asarray(spec.action.classes or spec.action.size), shape)


def random_play(trainer: Trainer) -> tuple[list[Outcome], float]:
    """Fill the replay as far as an update needs, and go on till enough episodes are over; answers them and env steps/s."""
    collector, train = trainer.collector, trainer.config.train
    enough = trainer.envs.num_envs * (train.length + 1)
    outcomes: list[Outcome] = []
    collector.start()
    began = time.perf_counter()
    while collector.steps < enough or (len(outcomes) < PLAY_EPISODES and time.perf_counter() - began < PLAY_SECONDS):
        outcomes += collector.step("random")
    return outcomes, collector.steps / (time.perf_counter() - began)


def show_play(config: RunConfig, outcomes: Sequence[Outcome]) -> float:
    """Length, return and success of random play; answers the success."""
    if not outcomes:
        print_line(
            "Random play: no episode ended in the time it had (if none ever does, env.max_episode_steps=... cuts them off)"
        )
        return 0.0
    success, score, length = (
        float(np.mean([getattr(outcome, name) for outcome in outcomes])) for name in ("success", "score", "length")
    )
    print_line(
        f"Random play: {len(outcomes)} episodes, mean length {length:.0f}, mean return {score:.3g}, "
        f"env.success={config.env.success} holds for {success:.0%}"
    )
    if success >= OFTEN:
        print_line("  - random play often succeeds by this rule, so it says little of skill: choose another env.success")
    return success


def record_bytes(spec: EnvSpec) -> int:
    """Bytes that one step takes in the replay."""
    observed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in spec.observations)
    kept = sum(np.dtype(dtype).itemsize for dtype in FIELDS.values()) + no_actions(spec.action).nbytes
    return observed + kept + np.dtype(np.int64).itemsize  # and the queue of rewarded records


def show_memory(config: RunConfig, spec: EnvSpec) -> None:
    """What the replay will take.

    Raises:
        UserError: more than this machine has.
    """
    needed = config.replay.capacity * record_bytes(spec)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"replay.capacity={config.replay.capacity} takes {size(needed)}, more than the {size(there)} of this machine: "
            f"give {there // record_bytes(spec) // 2} or less, or smaller observations."
        )
    print_line(f"Replay memory: {size(needed)} when full ({record_bytes(spec):,} bytes a step, {size(there)} in this machine)")


def seconds_per_update(trainer: Trainer) -> float:
    """Of the configured model and policy, on what random play has left in the replay."""
    began = 0.0
    for update in range(UPDATES + 1):
        if update == 1:  # the first warms up
            began = time.perf_counter()
        trainer.update()
        trainer.averager.pop()  # waits for the device
    return (time.perf_counter() - began) / UPDATES


def show_time(config: RunConfig, steps_per_second: float, update_seconds: float) -> None:
    """How long the configured budget takes: between the pace once something is solved and the pace before."""
    train = config.train
    spans = [
        train.env_steps / steps_per_second + (train.warmup_updates + train.env_steps / every) * update_seconds
        for every in (train.update_every, train.update_every_first)
    ]
    print_line(
        f"Training time: {clock_time(min(spans))} to {clock_time(max(spans))} for train.env_steps={train.env_steps} "
        f"({update_seconds:.2f} s an update)"
    )


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def one_line(text: str) -> str:
    """Without line breaks and colours, and not too long."""
    plain = text.replace("\x1b[33m", "").replace("\x1b[0m", "")
    return " ".join(plain.split())[:300]
