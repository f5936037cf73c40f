"""The jobs of `run.py`, by name: each answers its objective, a float."""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.build import choose_device
from agent.calibration import calibration_summary, foresee_tasks
from agent.check import check_environment
from agent.checkpoint import CheckpointStore, resolve
from agent.checkpointing import forget_later_shards, load_pretrained, restore, save
from agent.config import RunConfig
from agent.console import console, print_line, show_observations
from agent.dream.dataset import write_dataset
from agent.dream.goals import draw_goals
from agent.dream.job import check_dream, dream_tasks, picture_dream
from agent.evaluation import EvaluationStopped, check_evaluation
from agent.files import file_name
from agent.goals import Pursued, goal_summary
from agent.loading import load_agent
from agent.loggers import MetricLogger
from agent.novelty import Novelty, novelty_summary
from agent.pretrain.job import pretrain
from agent.processes import Processes
from agent.progress import Progress
from agent.replay_settings import check_new, send_left
from agent.results import evaluation_summary
from agent.run_folder import checkpoint_to_resume, write_config, write_json
from agent.run_lock import RunLock
from agent.stopping import stop_on_signal
from agent.trainer import Trainer
from agent.video import record_videos
from envs import make_task_space
from envs.errors import UserError
from world_model.engines import check_sharding

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
LOST = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe", re.IGNORECASE)  # what PyTorch says of a lost peer


def train(config: RunConfig, folder: Path) -> float:
    """Train an agent; answers the evaluation success on the hardest task (its training success where evaluation was skipped)."""
    check_sharding(config.sharding)
    processes = Processes.join(choose_device(config.device))
    if not processes.leads:  # what is to be said, rank 0 says
        console.quiet = True
        logging.getLogger().setLevel(logging.ERROR)
    store = CheckpointStore(folder / "checkpoints", config.train.keep_checkpoints, config.train.keep_best)
    lock = RunLock(folder)
    with lost_processes(folder, processes), lock:
        if config.resume and processes.leads:
            lock.acquire()
        resumed = processes.broadcast(_name(checkpoint_to_resume(config, folder, store) if processes.leads else None))
        return _train(config, folder, processes, store, store.folder / resumed if resumed else None, lock)


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


def _train(
    config: RunConfig, folder: Path, processes: Processes, store: CheckpointStore, resumed: Path | None, lock: RunLock
) -> float:
    trainer = Trainer(config, folder, processes)
    show_observations(trainer.envs.spec)
    if resumed is not None:
        restore(trainer, resumed)
        log.info("going on from %s, at %d env steps", resumed.name, trainer.env_steps)
        if trainer.finished:
            log.info("training is finished already: only its evaluation and report are done again")
    elif not config.resume:
        check_new(config, trainer.writer)
    else:
        forget_later_shards(trainer, [])
        log.info("%s was stopped before its first checkpoint: it starts from the beginning", folder)
    if resumed is None and config.train.pretrained:
        load_pretrained(trainer.engine, trainer.agent.model, Path(config.train.pretrained))
    if not processes.leads:
        return _follow(trainer, store)
    logger = MetricLogger(config.logger, folder, asdict(config), trainer.env_steps if config.resume else None, print_line)
    folder.mkdir(parents=True, exist_ok=True)  # only now: a run that cannot start leaves no trace of one
    lock.acquire()
    write_config(config, folder)
    progress = Progress(
        config.train.env_steps,
        str(trainer.device),
        config.logger.progress,
        env_steps=trainer.env_steps,
        updates=trainer.learner.updates,
        threshold=config.train.mastery,
        console=console,
    )
    try:
        with stop_on_signal(trainer):
            with progress:
                trainer.run(logger, progress, lambda: save(trainer, store))
            save(trainer, store)
            send_left(config, trainer.writer, processes)
            agent = trainer.end_alone()
            summary, failure = trainer.summary(), None
            try:
                with suppress(EvaluationStopped):
                    summary["tasks"] = evaluation_summary(agent, config, lambda: trainer.stopping)
                    summary |= _foresight(agent, config, folder, lambda: trainer.stopping)
                    goals, pursued = goal_summary(agent, config, lambda: trainer.stopping)
                    summary |= {"goals": goals} if goals else {}
                    for task, path in _goal_strips(agent, pursued, folder, config.env.holdout).items():
                        logger.image(trainer.env_steps, f"goals/{task}", path, "start, goal, what was reached")
            except UserError as error:  # the environment breaks down: training keeps its summary and report
                failure = error
            if not summary["tasks"]:
                print_line(_unevaluated(trainer, failure))
            summary["objective"] = objective(summary, trainer.tasks.hardest.id)
            _finish(trainer, agent, summary, logger)
            if failure is not None:
                raise failure
    finally:
        logger.close()
        trainer.collector.close()
        trainer.envs.close()
    return float(summary["objective"])


def _follow(trainer: Trainer, store: CheckpointStore) -> float:
    """The part of the processes that neither log nor evaluate."""
    config = trainer.config
    try:
        with stop_on_signal(trainer), Progress(config.train.env_steps, str(trainer.device), False, console=console) as progress:
            trainer.run(None, progress, lambda: save(trainer, store))
            save(trainer, store)
            send_left(config, trainer.writer, trainer.processes)
            trainer.end_alone()
    finally:
        trainer.collector.close()
        trainer.envs.close()
    return 0.0


@contextmanager
def lost_processes(folder: Path, processes: Processes) -> Iterator[None]:
    """Tell in one sentence that a disk is full, or that another process of the run is gone."""
    way_on = f"python run.py resume={folder} goes on from the last checkpoint"
    try:
        yield
    except OSError as error:
        if error.errno not in FULL and not any(f"errno = {number}," in str(error) for number in FULL):  # the latter of HDF5
            raise
        raise UserError(f"{folder} cannot be written to ({error}): make room; {way_on}") from error
    except RuntimeError as error:
        if processes.size > 1 and LOST.search(str(error)):
            raise UserError(f"another process of this run has ended, see what it or the launcher says; {way_on}") from error
        raise


def _foresight(agent: Agent, config: RunConfig, run: Path, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """`calibration`, how right predictions are, and `novelty`, how unlike the replay of the agent's own `run` what comes is.

    Nothing of an environment that breaks down meanwhile: what was evaluated is kept.
    """
    found: dict[str, Any] = {"calibration": {}}
    try:
        foreseen = foresee_tasks(agent, config, stopped)
        found["calibration"] = calibration_summary(foreseen)
        novelty = Novelty.of_replay(agent, run / "replay") if foreseen else None  # whose episodes may be damaged
        found |= {"novelty": novelty_summary(novelty, foreseen)} if novelty else {}
    except UserError as error:
        log.warning("eval.calibration: not all predictions were measured, as %s", error)
    return found


def _goal_strips(agent: Agent, pursued: dict[str, Pursued], folder: Path, new_layout: bool) -> dict[str, Path]:
    """Draw `media/goals_TASK.png` of every task; a picture that fails must not cost the run its results."""
    drawn: dict[str, Path] = {}
    for task, found in pursued.items():
        path = folder / "media" / f"goals_{file_name(task)}.png"
        try:
            drawn |= {task: path} if draw_goals(agent, found, path, new_layout) else {}
        except Exception as error:  # whatever goes wrong in drawing
            log.warning("the goals of %s could not be drawn: %s", task, error)
    return drawn


def evaluate_checkpoint(config: RunConfig, folder: Path) -> float:
    """Evaluate a trained agent on held-out layouts; writes `evaluation.json`."""
    agent = trained_agent(config)
    tasks = make_task_space(config.env)
    results = evaluation_summary(agent, config)
    foresight = _foresight(agent, config, resolve(config.checkpoint or "").parent.parent)
    goals, pursued = goal_summary(agent, config)
    found = {"checkpoint": config.checkpoint, "tasks": results} | foresight | ({"goals": goals} if goals else {})
    write_json(folder / "evaluation.json", found)
    for task, path in _goal_strips(agent, pursued, folder, config.env.holdout).items():
        print_line(f"Goals of {task}: {path}")
    if config.eval.video:
        for _, path, _ in record_videos(agent, config.env, config.eval, config.seed, folder / "media"):
            print_line(f"Video: {path}")
    print_line(f"Evaluation: {folder / 'evaluation.json'}")
    return objective({"tasks": results}, tasks.hardest.id)


def dream_checkpoint(config: RunConfig, folder: Path) -> float:
    """Draw what a trained agent's world model imagines beside what really happens; answers the mean absolute reward error."""
    agent = trained_agent(config)
    if config.dream.dataset:
        print_line(f"Data set: {write_dataset(agent, config)}")
    if not config.dream.episodes:
        return 0.0
    result = dream_tasks(agent, config, folder)
    if config.logger.report:
        _report(folder)
    return result


def trained_agent(config: RunConfig) -> Agent:
    """The agent of `checkpoint=`, for the environment of this config.

    Raises:
        UserError: no checkpoint was given, or it was made for other observations or actions.
    """
    if not config.checkpoint:
        raise UserError(f"job={config.job.name} needs checkpoint=RUN_FOLDER, a run folder or one of its checkpoints")
    check_evaluation(config.eval, config.hierarchy.name)
    check_dream(config.dream, drawn=config.dream.episodes > 0)
    return load_agent(config.checkpoint, config.device, config)


def objective(summary: dict[str, Any], hardest: str) -> float:
    """What a sweeper maximises: success on the hardest task."""
    if hardest in summary["tasks"]:
        return float(summary["tasks"][hardest]["success"])
    return float(summary.get("training", {}).get(hardest, {}).get("success") or 0.0)


def is_finished(folder: Path) -> bool:
    """Whether a folder's run got as far as its evaluation."""
    try:
        return bool(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["tasks"])
    except FileNotFoundError:
        return False


def objective_of(folder: Path) -> float:
    """The objective of a run that is finished, from its `summary.json`."""
    return float(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["objective"])


def _finish(trainer: Trainer, agent: Agent, summary: dict[str, Any], logger: MetricLogger) -> None:
    """Write summary, dream and report; a picture that fails must not cost the run its results."""
    config, folder = trainer.config, trainer.folder
    write_json(folder / "summary.json", summary)
    logger.summary(summary)
    for name, rows in result_tables(summary).items():
        logger.table(trainer.env_steps, name, rows)
    if summary["tasks"] and not trainer.stopping:
        path = folder / "media" / "dream.png"
        try:
            picture_dream(agent, config, trainer.tasks.hardest.id, path, stopped=lambda: trainer.stopping)
            logger.image(trainer.env_steps, "dream", path, "real above, imagined below")
        except Exception as error:  # whatever goes wrong in the environment or in drawing
            log.warning("the dream could not be drawn: %s", error)
    if summary["tasks"] and config.eval.video:
        films = record_videos(agent, config.env, config.eval, config.seed, folder / "media", lambda: trainer.stopping)
        for task, path, caption in films:
            logger.video(trainer.env_steps, f"eval/{task}", path, caption)
    if config.logger.report:
        _report(folder)


def result_tables(summary: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """For the loggers, a row a task: how it was evaluated in the end, and how often and how far it was trained on."""
    reached = summary["steps_to_threshold"]
    trained = {task: row | {"steps_to_threshold": reached.get(task)} for task, row in summary["training"].items()}
    tables = {"tables/evaluation": summary["tasks"], "tables/training": trained}
    return {name: [{"task": task} | row for task, row in table.items()] for name, table in tables.items() if table}


def _report(folder: Path) -> None:
    from agent.report import write_report

    print_line(f"Report: {write_report(folder)}")


def _unevaluated(trainer: Trainer, failure: UserError | None) -> str:
    """What is said of a run that ends without evaluation, and how it is gone on with."""
    command = f"python run.py resume={trainer.folder}"
    if not trainer.finished:
        return f"Stopped at {trainer.env_steps} env steps; go on with: {command}"
    what = "was stopped" if failure is None else "broke down, as said below"
    return f"Training ended at {trainer.env_steps} env steps, but its evaluation {what}; to evaluate it again: {command}"


def compare_curricula(config: RunConfig, folder: Path) -> float:
    """Compare the curricula of finished runs, from their folders alone; answers the largest area under tasks mastered."""
    from agent.compare.job import compare_runs

    return compare_runs(config, folder)


def plan_memory(config: RunConfig, folder: Path) -> float:
    """What a run needs on each rank; answers the bytes of the smallest configuration that fits."""
    from agent.plan.job import plan_run

    return plan_run(config, folder)


def audit_data(config: RunConfig, folder: Path) -> float:
    """Print what stored episodes are and what is wrong with them; answers how much is."""
    from agent.audit.job import audit

    return audit(config, folder)


def export_data(config: RunConfig, folder: Path) -> float:
    """Write stored episodes as a Minari data set; answers how many there are."""
    from agent.export import export

    return export(config, folder)


JOBS = {
    "train": train,
    "pretrain": pretrain,
    "evaluate": evaluate_checkpoint,
    "dream": dream_checkpoint,
    "check": check_environment,
    "compare": compare_curricula,
    "plan": plan_memory,
    "audit": audit_data,
    "export": export_data,
}


def run_job(config: RunConfig, folder: Path) -> float:
    """Run the job named in the config.

    Raises:
        UserError: if there is none of that name.
    """
    if config.job.name not in JOBS:
        raise UserError(f"job '{config.job.name}' is unknown; choose one of {', '.join(JOBS)}")
    threads = config.train.threads
    if threads:
        torch.set_num_threads(threads)
    return JOBS[config.job.name](config, folder)
