"""`job=pretrain`: from stored episodes to a world model that a run can start from."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from agent.checkpoint import CheckpointStore
from agent.config import RunConfig
from agent.console import console, print_line, show_observations
from agent.loggers import MetricLogger
from agent.pretrain.pretrainer import Pretrainer
from agent.progress import Progress
from agent.run_folder import checkpoint_to_resume, write_config, write_json
from agent.stopping import stop_on_signal

log = logging.getLogger(__name__)


def pretrain(config: RunConfig, folder: Path) -> float:
    """Train a world model on `pretrain.data`; answers the negative validation loss (0 without held-out episodes).

    Raises:
        UserError: data that are missing, broken or of another environment; a folder that holds a run already.
    """
    store = CheckpointStore(folder / "checkpoints", config.train.keep_checkpoints)
    resumed = checkpoint_to_resume(config, folder, store)
    job = Pretrainer(config, folder, resumed)
    show_observations(job.spec)
    data = job.data
    print_line(f"Data: {data.episodes:,} episodes of {data.steps:,} steps, {data.held_out:,} of them held out")
    if resumed is not None:
        log.info("going on from %s, after %d updates", resumed.name, job.updates)
    # In `metrics.jsonl` and loggers, what is called env_steps counts updates: nothing is played.
    logger = MetricLogger(config.logger, folder, asdict(config), job.updates if config.resume else None, print_line)
    write_config(config, folder)  # only now: a job that cannot start leaves no trace of one
    progress = Progress(
        config.pretrain.updates,
        str(job.device),
        config.logger.progress,
        env_steps=job.updates,
        updates=job.updates,
        console=console,
        unit="updates",
    )
    try:
        with stop_on_signal(job):
            with progress:
                job.run(logger, progress, lambda: job.save(store))
            path = job.save(store)
            summary = job.summary()
            write_json(folder / "summary.json", summary)
            logger.summary(summary)
            if config.logger.report:
                from agent.report import write_report

                print_line(f"Report: {write_report(folder)}")
    finally:
        logger.close()
    job.warn_of_overfitting()
    if job.finished:
        print_line(f"World model: {path}; start a run from it with: python run.py train.pretrained={folder} ...")
    else:
        print_line(f"Stopped after {job.updates} updates; go on with: python run.py resume={folder}")
    return float(summary["objective"])
