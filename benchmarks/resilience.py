"""Real runs that are killed, stopped and fed bad input: what is lost, what is said, what is left on disk.

python -m benchmarks.resilience [--seeds 1] [--quick] [overrides...]
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.resilience_process import (
    folder_override,
    half_written,
    logged_steps,
    resumed_at,
    said_steps,
    sentences,
    started,
    tree_hash,
    unreadable,
)
from benchmarks.store import Record
from benchmarks.training import RunError, composed_config, read_metrics

INTERVAL, ENVS = 256, 16
# Every env step is logged, so that the last line tells what a kill cost.
SMALL = (
    "env=doorkey", "env.tasks=[DoorKey-5x5]", f"env.num_envs={ENVS}", "model=debug", "logger=none", "logger.progress=false",
    "device=cpu", f"train.log_every={ENVS}", f"train.checkpoint_every={INTERVAL}", "train.stop_at_mastery=false",
    "train.random_steps=512", "train.warmup_updates=10", "train.update_every_first=64", "train.update_every=64",
    "replay.episodes_per_shard=4", "eval.episodes=4",
)  # fmt: skip
MOMENTS = ("any", "any", "checkpoint", "shard", "any", "checkpoint", "any", "shard")  # of the kills
STEPS = 4096
WARMUP = 3000  # updates: long enough to be stopped in
QUICK_MOMENTS, QUICK_STEPS = ("any", "checkpoint"), 1024

Cases = dict[str, tuple[list[str], Callable[[Path], object]]]


def kill_run(given: list[str], moments: tuple[str, ...], seed: int, context: Context) -> dict[str, Any]:
    """Kill -9 and resume, again and again, up to the end; then the same run without a kill, to compare."""
    folder, rng = context.folder / "run", random.Random(seed)
    arguments, at = [*given, folder_override(folder)], 0
    kills: list[dict[str, Any]] = []
    for number, moment in enumerate((*moments, None)):
        with started(arguments, folder.with_name(f"life_{number}.log"), context.threads, context.stop) as run:
            if number:
                run.until(lambda: resumed_at(run.words()) is not None)
                at = resumed_at(run.words()) or 0
                kills[-1] |= {"resumed_at": at, "lost": kills[-1]["env_steps"] - at}
                context.report({"env_steps": at})
            if moment is None:
                code = run.ended()
                break
            target = at + rng.randint(INTERVAL // ENVS // 4, 3 * INTERVAL // ENVS // 2) * ENVS
            run.until(lambda: said_steps(run.words()) >= target)  # noqa: B023  # it is over before the next
            if moment == "any":
                time.sleep(rng.uniform(0.0, 0.3))
            else:
                run.until(lambda: bool(half_written(folder, moment)), poll=0.0)  # noqa: B023
            run.send(signal.SIGKILL)
            killed = run.ended()
        left = [name for kind in ("checkpoint", "shard") for name in half_written(folder, kind)]
        kills.append(
            {
                "moment": moment,
                "exit_code": killed,
                "env_steps": logged_steps(folder),
                "half_written": left,
                "unreadable": unreadable(folder),
            }
        )
        arguments = [f"resume={folder}"]
    straight = folder.with_name(f"{folder.name}_straight")
    with started([*given, folder_override(straight)], folder.with_name("straight.log"), context.threads, context.stop) as run:
        run.ended()
    steps = [row["env_steps"] for row in read_metrics(folder)]
    return {
        "checkpoint_every": INTERVAL,
        "kills": kills,
        "most_lost": max(kill["lost"] for kill in kills),
        "exit_code": code,
        "env_steps": steps[-1],
        "every_step_logged_once": steps == list(range(ENVS, steps[-1] + 1, ENVS)),
        "equals_the_run_that_was_never_killed": _last_weights(folder) == _last_weights(straight),
    }


def stop_run(given: list[str], context: Context) -> dict[str, Any]:
    """Ctrl-C during the model's warm-up, in training and during evaluation; after each the run is resumed."""
    folder = context.folder / "run"
    moments: dict[str, Callable[[str], bool]] = {
        "warm-up": lambda words: logged_steps(folder) >= 512 - ENVS,  # nothing is printed before it, but logged
        "training": lambda words: said_steps(words) >= 800,
        "evaluation": lambda words: "Evaluating" in words,
    }
    arguments = [*given, folder_override(folder)]
    stops: list[dict[str, Any]] = []
    for number, (moment, reached) in enumerate((*moments.items(), ("end", None))):
        with started(arguments, folder.with_name(f"life_{number}.log"), context.threads, context.stop) as run:
            if reached is not None:
                run.until(lambda: reached(run.words()))  # noqa: B023
                time.sleep(2.0 if moment == "warm-up" else 0.5)  # into the warm-up, the evaluation
                run.send(signal.SIGINT)
            asked = time.monotonic()
            code = run.ended()
            seconds, words = time.monotonic() - asked, run.words()
        if number:
            stops[-1]["resumed_at"] = resumed_at(words)
        if reached is None:
            break
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        newest = max(path.name for path in (folder / "checkpoints").glob("step_*"))
        report = folder / "report.html"
        stops.append(
            {
                "moment": moment,
                "in_time": 0 < summary["updates"] < WARMUP if moment == "warm-up" else not summary["tasks"],
                "exit_code": code,
                "seconds_to_exit": round(seconds, 2),
                "env_steps": summary["env_steps"],
                "updates": summary["updates"],
                "checkpoint": int(newest.removeprefix("step_")),
                "report": report.is_file(),
                "unreadable": unreadable(folder),
                "traceback": "Traceback" in words,
            }
        )
        report.unlink()  # the next stop has to write its own
        arguments = [f"resume={folder}"]
    finished = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {"stops": stops, "exit_code": code, "env_steps": finished["env_steps"], "evaluated": bool(finished["tasks"])}


def cut_files(*paths: Path) -> None:
    """Take the last tenth of files away."""
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 9 // 10])


def nothing(folder: Path) -> None:
    """What a run's folder needs before input that is bad by itself."""


def bad_input(run: Path, out: Path) -> Cases:
    """What is given, and what is done to the run folder before. Every case has to be refused."""
    new, own = folder_override(out), f"resume={run}"
    return {
        "unknown key": (["train.env_stpes=100", new], nothing),
        "wrong type": (["train.env_steps=many", new], nothing),
        "unknown environment": (["env=any", "env.id=CartPool-v1", new], nothing),
        "unknown group": (["model=huge", new], nothing),
        "a folder that holds a run": ([folder_override(run)], nothing),
        "checkpoint of another model": (["job=evaluate", f"checkpoint={run}", "model=xs", new], nothing),
        "resumed with another model": ([own, "model.width=128"], nothing),
        "checkpoint for another environment": (["job=evaluate", f"checkpoint={run}", "env=cartpole", new], nothing),
        "truncated shard": ([own], lambda folder: cut_files(min((folder / "replay").glob("shard_*.h5")))),
        "truncated checkpoints": ([own], lambda folder: cut_files(*folder.glob("checkpoints/*/model.safetensors"))),
    }


def refuse_run(given: list[str], context: Context) -> dict[str, Any]:
    """Bad input beside a finished run: exit code, what is said, and whether the run's folder stays as it was."""
    folder, found = context.folder / "run", {}
    with started([*given, folder_override(folder)], folder.with_name("first.log"), context.threads, context.stop) as run:
        if run.ended() != 0:
            raise RunError(run.words()[-300:])
    whole, out = folder.with_name("whole"), folder.with_name("out")
    folder.rename(whole)
    for number, (name, (arguments, damage)) in enumerate(bad_input(folder, out).items()):
        shutil.copytree(whole, folder)
        damage(folder)
        before = tree_hash(folder)
        with started(arguments, folder.with_name(f"case_{number}.log"), context.threads, context.stop) as run:
            code, said = run.ended(), sentences(run.words(), folder)
        found[name] = {
            "exit_code": code,
            "said": said[0] if len(said) == 1 else said,
            "one_sentence": len(said) == 1,
            "unchanged": tree_hash(folder) == before and not any(out.rglob("*")),  # Hydra makes the folder, empty
        }
        shutil.rmtree(folder)
    whole.rename(folder)
    return {"cases": found}


def _last_weights(folder: Path) -> bytes:
    return (max((folder / "checkpoints").glob("step_*")) / "model.safetensors").read_bytes()


def kills_hold(figures: dict[str, Any]) -> bool:
    """Nothing torn, no more lost than a checkpoint interval, and the end is that of a run that was never killed."""
    sound = all(kill["exit_code"] == -signal.SIGKILL and not kill["unreadable"] for kill in figures["kills"])
    whole = figures["every_step_logged_once"] and figures["equals_the_run_that_was_never_killed"]
    return bool(sound and whole and figures["exit_code"] == 0 and figures["most_lost"] <= figures["checkpoint_every"])


def stops_hold(figures: dict[str, Any]) -> bool:
    """Every Ctrl-C left a checkpoint of its very step and a report, and the run came to its end."""
    sound = all(
        stop["exit_code"] == 0
        and stop["in_time"]
        and stop["report"]
        and not stop["traceback"]
        and not stop["unreadable"]
        and stop["env_steps"] == stop["checkpoint"] == stop["resumed_at"]
        for stop in figures["stops"]
    )
    return bool(sound and figures["exit_code"] == 0 and figures["evaluated"])


def refusals_hold(figures: dict[str, Any]) -> bool:
    """Every case ended with exit code 2 and one sentence, and changed nothing on disk."""
    cases = figures["cases"].values()
    return all(case["exit_code"] == 2 and case["one_sentence"] and case["unchanged"] for case in cases)


HOLDS: dict[str, Callable[[dict[str, Any]], bool]] = {"kill": kills_hold, "ctrl_c": stops_hold, "bad_input": refusals_hold}


def plan(options: Options) -> list[Run]:
    moments, steps = (QUICK_MOMENTS, QUICK_STEPS) if options.quick else (MOMENTS, STEPS)
    common = [*SMALL, *options.overrides]
    runs = []
    for seed in options.seeds:
        asked: dict[str, tuple[list[str], Callable[[list[str], Context], dict[str, Any]]]] = {
            "kill": ([f"train.env_steps={steps}"], partial(_kill, moments, seed)),
            "ctrl_c": (["train.env_steps=1024", f"train.warmup_updates={WARMUP}", "eval.episodes=40"], stop_run),
            "bad_input": (["train.env_steps=768", "env.kwargs.max_steps=30"], refuse_run),
        }
        for variant, (own, execute) in asked.items():
            given = [*common, *own]
            config = composed_config(given) | ({"moments": list(moments)} if variant == "kill" else {})
            runs.append(Run(variant, seed, config, partial(_judged, variant, execute, [*given, f"seed={seed}"])))
    return runs


def _kill(moments: tuple[str, ...], seed: int, given: list[str], context: Context) -> dict[str, Any]:
    return kill_run(given, moments, seed, context)


def _judged(
    variant: str, execute: Callable[[list[str], Context], dict[str, Any]], given: list[str], context: Context
) -> dict[str, Any]:
    figures = execute(given, context)
    return {"reached": HOLDS[variant](figures), **figures}


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    runs = {f"{record['variant']} seed {record['seed']}": record for record in records}
    kills = [kill for record in records for kill in (record["figures"] or {}).get("kills", [])]
    return {
        "runs": {name: {"error": record["error"], **(record["figures"] or {"reached": False})} for name, record in runs.items()},
        "steps_lost": [kill["lost"] for kill in kills],
        "half_written": sum(bool(kill["half_written"]) for kill in kills),
        "reached": bool(runs) and all(record["reached"] is True for record in records),
    }


def show(result: dict[str, Any]) -> Table:
    table = Table("what", "exit code", "env steps", "goes on from", "", title="Killed, stopped, refused", title_justify="left")
    for name, run in result["runs"].items():
        verdict = run["error"] or ("as promised" if run["reached"] else "NOT as promised")
        table.add_row(name, str(run.get("exit_code", "")), str(run.get("env_steps", "")), "", verdict, style="bold")
        for kill in run.get("kills", ()):
            note = f"lost {kill['lost']}" + (f", amid {', '.join(kill['half_written'])}" if kill["half_written"] else "")
            row = (f"  kill -9 ({kill['moment']})", kill["exit_code"], kill["env_steps"], kill["resumed_at"], note)
            table.add_row(*(str(cell) for cell in row))
        for stop in run.get("stops", ()):
            note = f"after {stop['seconds_to_exit']:.1f} s"
            row = (f"  Ctrl-C in {stop['moment']}", stop["exit_code"], stop["env_steps"], stop["resumed_at"], note)
            table.add_row(*(str(cell) for cell in row))
        for case, found in run.get("cases", {}).items():
            table.add_row(f"  {case}", str(found["exit_code"]), "", "", str(found["said"]))
    return table


BENCHMARK = Benchmark(
    "resilience", "Runs that are killed, stopped and fed bad input.", plan, summarise, show, seeds=(1,)
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
