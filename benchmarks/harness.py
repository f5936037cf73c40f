"""What every benchmark shares: its command line, its runs, their records, and the one JSON object it ends with.

    python -m benchmarks.NAME [--seeds 1 2 3] [--quick] [--jobs N] [overrides...]

Runs already among the results (same variant, seed and config) are skipped; each finished run is recorded at once, so that an
interrupted benchmark continues where it was. A quick run does the same with less of everything and records nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from agent.run_lock import RunLock
from benchmarks.progress import Live, ending_in_order
from benchmarks.provenance import ROOT, code, commit, cores, digest, machine, scrub, versions
from benchmarks.store import Record, Results
from benchmarks.training import Metrics, RunError, StoppedError
from envs.errors import UserError


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Attributes:
        seeds: one run of each variant for each.
        quick: less of everything, the same keys, nothing recorded.
        jobs: runs side by side; wall-clock figures are to be taken from `jobs=1`.
        threads: CPU threads of each run.
        fresh: run again what is already among the results.
        overrides: `key=value`, handed to the runs.
        arguments: what the benchmark itself added to the command line.
        results: folder of the results.
        runs: folder that the run folders are made in.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    quick: bool = False
    jobs: int = 1
    threads: int = 1
    fresh: bool = False
    overrides: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    results: Path = ROOT / "benchmarks" / "results"
    runs: Path = ROOT / "runs" / "benchmarks"


@dataclass(frozen=True)
class Context:
    """What a run is given while it executes.

    Its own folder, empty unless it resumes; its threads; where to tell its progress; and when to stop.
    """

    folder: Path
    threads: int
    report: Callable[[Metrics], None]
    stop: threading.Event


@dataclass(frozen=True)
class Run:
    """One run of a benchmark.

    Attributes:
        variant: which learner or setting.
        seed: its seed.
        config: everything that decides its figures apart from the seed and the code, as plain data; its hash names the run.
        execute: does the work, and answers the figures as plain data. What it answers under `reached` is what the run was for,
            `None` if it never got there. May raise `RunError`, `StoppedError`.
        total_steps: env steps it will take at most, for the progress bar.
        threads: instead of those of the command line.
        resumes: it goes on from what an earlier try of the same code has left in its folder.
    """

    variant: str
    seed: int
    config: Mapping[str, Any]
    execute: Callable[[Context], dict[str, Any]]
    total_steps: int | None = None
    threads: int | None = None
    resumes: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: which runs, what is made of their records, and how that is shown.

    Attributes:
        name: of its module and of its results.
        description: one line for `--help`.
        plan: the runs.
        summarise: the figures of the final JSON object, from the records of all runs that were finished, now or earlier.
        show: that object for people.
        seeds: the default ones.
        add_arguments: adds options of its own to the command line.
    """

    name: str
    description: str
    plan: Callable[[Options], list[Run]]
    summarise: Callable[[Options, list[Record]], dict[str, Any]]
    show: Callable[[dict[str, Any]], RenderableType]
    seeds: tuple[int, ...] = (1, 2, 3)
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run it; answer the exit code: 0, 1 if a run failed, 2 for bad input, 130 after Ctrl-C."""
        try:
            options = self.parse(sys.argv[1:] if argv is None else argv)
            runs = self.plan(options)
            records, interrupted = run_all(self.name, runs, options)
            summary = self.summarise(options, records)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        result = {
            "benchmark": self.name,
            "quick": options.quick,
            "seeds": list(options.seeds),
            "interrupted": interrupted,
            **summary,
        }
        Console().print(self.show(result))
        print(json.dumps(result, allow_nan=False), flush=True)
        return 130 if interrupted else int(any(record["error"] is not None for record in records))

    def parse(self, argv: Sequence[str]) -> Options:
        """Read the command line.

        Raises:
            UserError: a word that is neither an option nor `key=value`.
        """
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.description)
        parser.add_argument("--seeds", nargs="+", default=[], metavar="SEED", help=f"default: {' '.join(map(str, self.seeds))}")
        parser.add_argument(
            "--quick", action="store_true", help="one seed and little work, to see that it runs; nothing is recorded"
        )
        parser.add_argument("--jobs", type=int, default=1, help="runs side by side (wall-clock figures: from --jobs 1)")
        parser.add_argument("--threads", type=int, help="CPU threads of each run; by default the cores divided by --jobs")
        parser.add_argument("--fresh", action="store_true", help="run again what is already among the results")
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="handed to the runs")
        own = {action.dest for action in parser._actions}
        self.add_arguments(parser)
        known = parser.parse_intermixed_args(list(argv))
        # `--seeds 1 2 model=xs`: argparse takes every word up to the next option for a seed.
        seeds = [word for word in known.seeds if word.isdecimal()]
        overrides = [*(word for word in known.seeds if not word.isdecimal()), *known.overrides]
        for word in overrides:
            if "=" not in word and not word.startswith("~"):
                raise UserError(f"{word} is neither a seed nor key=value; seeds go after --seeds, config as key=value.")
        if known.jobs < 1 or (known.threads is not None and known.threads < 1):
            raise UserError("--jobs and --threads have to be at least 1.")
        chosen = tuple(dict.fromkeys(int(seed) for seed in seeds)) or (self.seeds[:1] if known.quick else self.seeds)
        threads = known.threads or max(1, cores() // known.jobs)
        arguments = {key: value for key, value in vars(known).items() if key not in own}
        return Options(chosen, known.quick, known.jobs, threads, known.fresh, tuple(overrides), arguments)


def run_all(name: str, runs: Sequence[Run], options: Options) -> tuple[list[Record], bool]:
    """Do the runs that are not among the results yet, `options.jobs` at a time, recording each as it finishes.

    Returns:
        The records of all runs that finished or failed, now or earlier, in the order of `runs`; whether Ctrl-C cut this short.
    """
    results = Results(options.results, name)
    records: dict[int, Record] = {}
    if not options.quick and not options.fresh:
        found = ((index, results.find(run.variant, run.seed, run.config, options.overrides)) for index, run in enumerate(runs))
        records = {index: record for index, record in found if record is not None}
    here = commit()
    live = Live(Console(stderr=True))
    with live, ending_in_order(live.say) as stop, ThreadPoolExecutor(options.jobs) as pool:
        for index, record in records.items():
            old = "" if record.get("commit") == here["commit"] else " (of another commit; --fresh runs it again)"
            live.say(f"{runs[index].variant} seed {runs[index].seed}: already among the results{old}")
        under_way = {
            pool.submit(_execute, name, run, options, here, live, stop): index
            for index, run in enumerate(runs)
            if index not in records
        }
        try:
            for future in as_completed(under_way):
                done = future.result()
                if done is None:
                    continue
                if not options.quick:
                    results.add(done)
                records[under_way[future]] = done
        except BaseException:
            stop.set()  # or the pool would wait for the other runs
            raise
        return [records[index] for index in sorted(records)], stop.is_set()


def _execute(name: str, run: Run, options: Options, here: Mapping[str, Any], live: Live, stop: threading.Event) -> Record | None:
    """Do one run; answer its record, `None` if it was interrupted."""
    if stop.is_set():
        return None
    threads = run.threads or options.threads
    figures: dict[str, Any] | None = None
    error: str | None = None
    folder = _folder(name, run, options)
    started = time.perf_counter()
    try:
        with live.run(f"{run.variant} seed {run.seed}", run.total_steps) as report:
            figures = run.execute(Context(folder, threads, report, stop))
    except StoppedError:
        return None
    except RunError as failure:
        error = scrub(str(failure))
    finally:
        if options.quick:
            shutil.rmtree(folder.parent, ignore_errors=True)
    seconds = time.perf_counter() - started
    live.say(f"{run.variant} seed {run.seed}: {error or 'done'} after {seconds:.0f} s")
    return {
        "benchmark": name,
        "variant": run.variant,
        "seed": run.seed,
        "reached": (figures or {}).get("reached"),
        "error": error,
        "figures": figures,
        "process_seconds": round(seconds, 2),
        "threads": threads,
        "jobs": options.jobs,
        "overrides": [scrub(word) for word in options.overrides],
        "config_hash": digest(run.config),
        "config": dict(run.config),
        **here,
        "versions": versions(),
        "machine": machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _folder(name: str, run: Run, options: Options) -> Path:
    """Where to run.

    Raises:
        UserError: an earlier try of it still trains there.
    """
    if options.quick:
        return Path(tempfile.mkdtemp(prefix="strata-quick-")) / "run"
    folder = options.runs / name / f"{run.variant}_seed{run.seed}_{digest(run.config)}"
    now, begun = code(), _begun(folder)
    same = now is not None and begun.exists() and begun.read_text(encoding="utf-8") == now
    if folder.exists() and not (run.resumes and same and not options.fresh):  # of a run that did not finish, or is run afresh
        with RunLock(folder) as lock:
            lock.acquire()
            shutil.rmtree(folder)
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.write_text(now or "", encoding="utf-8")
    return folder


def _begun(folder: Path) -> Path:
    """Beside a run's folder: of which code it is."""
    return folder.with_name(f"{folder.name}.code")
