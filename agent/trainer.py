"""The training loop: act, learn, log, checkpoint; and how a run ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.acting.collector import AsyncCollector
from agent.agent import Agent
from agent.build import build_agent, burn_in, choose_device, gathered_agent
from agent.collector import Collector
from agent.config import RunConfig
from agent.evaluation import EvaluationStopped
from agent.health import Health
from agent.history import History
from agent.holdout import Holdout
from agent.imagined_success import imagined_signals
from agent.learner import Learner
from agent.loggers import MetricLogger
from agent.metrics import Averager, SuccessTracker
from agent.periodic import PeriodicEvaluation
from agent.processes import Processes, rank_folder
from agent.progress import Progress
from agent.replay import Replay, SampleMix
from agent.replay_settings import make_writer
from agent.rewards import LearnedReward
from agent.sequences import Episode
from agent.settings import check_settings
from agent.shared_curriculum import SharedCurriculum
from agent.signals import OF_EPISODES, check_gathering, check_signals, check_values
from agent.timing import PhaseTimer
from agent.value_error import episode_signals
from curriculum import make_curriculum
from envs import SuccessRule, make_envs, make_task_space
from envs.errors import UserError

log = logging.getLogger(__name__)

TELLS_NOTHING = 0.95  # share of successes in random play from which a success rule tells nothing
ENOUGH_EPISODES = 10  # of random play, to judge that by
TOTALS = ("replay/", "env/faults/")  # metrics that are summed over processes; of the others means are taken


def broken_down(what: str, env_steps: int, folder: Path) -> UserError:
    """The error that ends a run whose numbers are no longer finite."""
    return UserError(
        f"{what} is not finite at {env_steps} env steps: training broke down; resume={folder} goes on from the last good "
        "checkpoint, best with a lower model.lr or hierarchy.actor_critic.lr"
    )


class Trainer:
    """One run: its parts, its counters and its loop. `agent.checkpointing` saves and restores it.

    Of several processes each has environments, replay and random numbers of its own. World model and policies are the same in all
    of them, and so is everything that decides what comes next: env steps, success of every task, when to stop.
    """

    def __init__(self, config: RunConfig, folder: Path, processes: Processes | None = None) -> None:
        self.config, self.folder = config, folder
        self.processes = processes or Processes()
        check_settings(config, self.processes.size)
        self.device = choose_device(config.device)
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.seed)
        # Apart, so that what is sampled for learning does not shift which tasks are played.
        own = [config.seed, self.processes.rank] if self.processes.rank else config.seed
        self.task_rng, self.replay_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(own).spawn(2))
        self._setup_environments()
        self._setup_agent()
        self._setup_records()
        self.asked_to_stop = self._stopping = False
        if self.processes.rank:  # only now: the agent's first weights are the same everywhere
            torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))

    @property
    def stopping(self) -> bool:
        """Whether the run is to end here. Of several processes all are told before any of them acts on it."""
        return self._stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self.asked_to_stop = value
        if self.processes.size == 1:
            self._stopping = value

    def _agree(self) -> None:
        """Stop in all processes where one was asked to."""
        self._stopping = self.processes.any(self.asked_to_stop)

    def _setup_environments(self) -> None:
        self.tasks = make_task_space(self.config.env)
        self.rule = SuccessRule.parse(self.config.env.success)
        env = self.config.env
        if self.config.acting.mode == "async":  # here they are only asked what they are
            env = replace(env, vectorization="sync")
        self.envs = make_envs(env, self.tasks, gamma=self.config.hierarchy.actor_critic.gamma)
        self.reward = LearnedReward(self.config.env, self.envs)
        self.curriculum = make_curriculum(self.config.curriculum, self.tasks)
        if self.processes.size > 1:
            self.curriculum = SharedCurriculum(self.curriculum, self.processes)

    @property
    def part(self) -> str:
        """The folder, below that of the replay, of this process's finished episodes: `.`, and `rank_N` of the others."""
        return rank_folder(Path(), self.processes.rank).as_posix()

    @property
    def replay_folder(self) -> Path:
        """Where this process's finished episodes are kept."""
        return self.folder / "replay" / self.part

    def _setup_agent(self) -> None:
        config, train = self.config, self.config.train
        self.agent, self.engine = build_agent(config, self.envs.spec, self.device)
        together = self.processes.size
        self.agent.processes = self.processes
        self.learner = Learner(
            self.engine, self.agent.hierarchy, config.hierarchy, train.batch // together, self.device, self.processes
        )
        required = self.curriculum.required_signals
        check_signals(required, config.model, self.agent.hierarchy, config.env)
        check_values(required, self.agent.model, self.agent.hierarchy, self.device)
        check_gathering(required, self.engine.is_whole)
        self.learner.required_signals, self.learner.task_ids = required, self.tasks.ids
        memory = config.replay
        window = -(-memory.recent_window // together)  # each process has its share of the newest steps and of the rewards seen
        before = burn_in(config, self.agent.model)
        self.mix = SampleMix(memory.recent, memory.rewarded, together * memory.rewarded_cap, window, memory.history, before)
        self.writer = make_writer(config, self.replay_folder, self.envs.spec, part=self.part)
        # Room for as large a share as is held out, and for a few sequences of every environment.
        records = max(int(train.validation * memory.capacity), 4 * self.envs.num_envs * train.length)
        holdout = Holdout(train.validation, train.validation_after // together, records)
        self.replay = Replay(self.envs.spec, self.envs.num_envs, memory.capacity, self.tasks.ids, self.writer.add, holdout)
        if memory.history:
            self.replay.history = History(
                self.replay_folder, self.envs.spec, self.tasks.ids, lambda: self.writer.names,
                memory.capacity, memory.cache, memory.prefetch, self.writer.remote, memory.synthetic,
            )  # fmt: skip
        kind = partial(AsyncCollector, config, lambda: self.learner.updates) if config.acting.mode == "async" else Collector
        self.collector: Collector = kind(
            self.envs, self.agent, self.replay, self.curriculum, self.rule, self.reward, self.task_rng, config.env.report,
            config.hierarchy.plan_training,
        )  # fmt: skip
        self.collector.processes = together
        if isinstance(self.curriculum, SharedCurriculum):
            self.collector.idle = partial(self.curriculum.idle, self.task_rng)
        if required & OF_EPISODES:
            self.collector.assess = self._assess

    def _assess(self, episode: Episode) -> dict[str, float]:
        """What a curriculum that asks for signals of episodes is told of one."""
        hierarchy = self.config.hierarchy
        learning = hierarchy.actor_critic
        with self.timer("curriculum"):
            return episode_signals(self.agent, episode, learning.gamma, learning.lmbda, hierarchy.discovery)

    def _setup_records(self) -> None:
        self.tracker = SuccessTracker(self.tasks.ids, threshold=self.config.train.mastery)
        self.averager = Averager()
        self.health = Health(self.agent.model.latents, self.config.train.look_every)
        self.timer = PhaseTimer()
        self.evaluation = PeriodicEvaluation(self.config, self.envs.spec)
        self.evaluated: dict[str, float] = {}  # figures of an evaluation that are not logged yet
        self.owed = 0.0  # updates that the steps taken so far have earned
        self.seconds_before = 0.0  # training seconds of the run before it was resumed
        self.dealt = False  # whether stored episodes were shared out anew once: memory is not that of this process's folder alone
        self.left_shards: dict[str, list[str]] = {}  # of processes that the run has no more, by their folder below `replay`
        self.next_log = self.config.train.log_every
        self.next_checkpoint = self.config.train.checkpoint_every
        self.logged = -1  # env steps of the last log line
        self._began = time.perf_counter()

    @property
    def env_steps(self) -> int:
        return self.collector.steps

    @property
    def mastered(self) -> bool:
        return self.tracker.steps_to_threshold()[self.tasks.hardest.id] is not None

    @property
    def finished(self) -> bool:
        train = self.config.train
        return self.env_steps >= train.env_steps or (train.stop_at_mastery and self.mastered)

    @property
    def score(self) -> float | None:
        """How good the agent is, to tell the best checkpoint: success on the hardest task, of the last periodic evaluation where
        there are any (`eval.every`), else in training; None until it is known."""
        hardest = self.tasks.hardest.id
        if self.evaluation.every:
            return self.evaluation.success.get(hardest)
        return self.tracker.judged().get(hardest)

    def seconds(self) -> float:
        """Training seconds of the whole run."""
        return self.seconds_before + time.perf_counter() - self._began

    def run(self, logger: MetricLogger | None, progress: Progress, save: Callable[[], Path]) -> None:
        """Train until the budget is spent, the hardest task is mastered, or `stopping` is set; `save` writes a checkpoint.

        Rank 0 alone has a `logger`; the others work out what is logged with it.
        """
        self._began = time.perf_counter()
        if not self.collector.playing:
            self.collector.start()
        self.learn()  # what a run that was stopped while it learned has left to do, before its next step
        if self.evaluate():  # ... or while it was evaluated
            self._log(logger)
        self._agree()
        while not self.finished and not self.stopping:
            self.step()
            progress.update(self.env_steps, self.learner.updates, self.collector.current_task(), self.tracker.success())
            due = self.env_steps >= self.next_log
            if due:
                self.next_log += self.config.train.log_every
            if self.evaluate() or due:
                self._log(logger)
            if self.env_steps >= self.next_checkpoint:
                self.next_checkpoint += self.config.train.checkpoint_every
                with self.timer("checkpoint"):
                    save()
        self.seconds_before = self.seconds()
        self._began = time.perf_counter()
        if self.logged < self.env_steps:
            self._log(logger)

    def _log(self, logger: MetricLogger | None) -> None:
        self.logged = self.env_steps
        metrics = self.metrics()
        if logger is not None:
            logger.log(self.env_steps, metrics)

    def step(self) -> None:
        """One step of every environment, then the updates it has earned."""
        train = self.config.train
        with self.timer("acting"):
            outcomes = self.collector.step("random" if self.env_steps < train.random_steps else "sample")
        if isinstance(self.curriculum, SharedCurriculum):
            outcomes = self.curriculum.heard
        self._agree()
        for outcome in outcomes:
            self.tracker.record(outcome, self.seconds())
        if self.env_steps < train.random_steps:
            return
        steps = self.envs.num_envs * self.processes.size
        if self.env_steps - steps < train.random_steps:
            self._check_success_rule()
        self.owed += steps / self.update_every
        self.learn()

    def evaluate(self) -> bool:
        """Do the evaluation that is due; False where none is. Its time is none of training's."""
        if self.stopping or not self.evaluation.due(self.env_steps):
            return False
        before = self.evaluation.seconds
        agent = self.whole_agent()
        if self.processes.leads:  # the others wait
            with suppress(EvaluationStopped):
                self.evaluated = self.evaluation(agent, self.env_steps, lambda: self.asked_to_stop)
        done = self.processes.broadcast(bool(self.evaluated))
        self.evaluation.load_state_dict(self.processes.broadcast(self.evaluation.state_dict()), self.env_steps)
        self._began += self.evaluation.seconds - before
        return done

    def end_alone(self) -> Agent:
        """Part from the other processes: what follows, rank 0 does alone, with the agent that is answered."""
        agent = self.whole_agent()
        self.processes.leave()
        self.processes = agent.processes = Processes()
        self.stopping = self.asked_to_stop
        return agent

    def whole_agent(self) -> Agent:
        """The agent as rank 0 alone can use it. Every process calls it: weights that none of them holds whole are gathered."""
        if self.engine.is_whole:
            return self.agent
        return gathered_agent(self.config, self.engine, self.agent, self.processes.leads)

    def learn(self) -> None:
        """The warm-up of the model, then the updates that the steps so far have earned; when stopping, the rest stays owed.

        So do all while some process remembers no whole sequence, as it may after a resume that drops the episodes under way.
        """
        train = self.config.train
        if self.env_steps < train.random_steps or (self.learner.updates >= train.warmup_updates and self.owed < 1):
            return
        if self.processes.any(self.replay.longest < train.length):
            return
        while self.learner.updates < train.warmup_updates and not self.stopping:
            self.update(policy=False)
            self._agree()
        while self.owed >= 1 and not self.stopping:
            self.owed -= 1
            self.update()
            self._agree()

    def _check_success_rule(self) -> None:
        """Warn, when random play ends, of a success that anybody has."""
        share, episodes = self.tracker.share()
        if episodes >= ENOUGH_EPISODES and share >= TELLS_NOTHING:
            log.warning(
                "env.success=%s held in %.0f %% of %d episodes of random play, so it says nothing about skill: "
                "give another rule, env.success='return>=X' or env.success=info:KEY",
                self.config.env.success, 100 * share, episodes,
            )  # fmt: skip

    @property
    def update_every(self) -> float:
        """Env steps per update: few while nothing is solved, more once something is."""
        train = self.config.train
        return train.update_every if self.tracker.solved_lately() else train.update_every_first

    def update(self, policy: bool = True) -> None:
        train = self.config.train
        with self.timer("sampling"):
            batch = self.replay.sample(self.learner.batch, train.length, self.replay_rng, self.mix)
        look = self.health.due(self.learner.updates)
        metrics = self.learner.update(batch, self.timer, policy, look)
        if self.learner.signals or (self.processes.size > 1 and self.curriculum.required_signals):
            self.curriculum.observe(self.learner.signals)
        self.collector.learned()
        imagined = self.config.curriculum.imagined_success
        if "imagined_success" in self.curriculum.required_signals and self.learner.updates % imagined.every == 0:
            with self.timer("curriculum"):
                self.curriculum.observe(
                    imagined_signals(self.agent, self.replay, imagined, self.config.seed + self.learner.updates)
                )
        if look:
            with self.timer("validation"):
                metrics |= self._look(metrics)
        self.averager.add(metrics)

    def _look(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Validate on held-out episodes and see whether learning is sound, after the update that answered `metrics`."""
        train = self.config.train
        rng = np.random.default_rng((self.config.seed, self.learner.updates))  # its own: training draws as without it
        batch = self.replay.sample_held_out(self.learner.batch, train.length, rng, self.mix)
        if self.processes.any(batch is None):
            batch = None
        validation = self.learner.validate(batch) if batch is not None else {}
        losses = {name.removeprefix("model/"): float(value) for name, value in metrics.items() if name.startswith("model/")}
        norms = {
            name.removeprefix("gradients/"): float(value) for name, value in metrics.items() if name.startswith("gradients/")
        }
        return validation | self.health.look(losses, validation.get("validation/total"), norms, self.learner.codes)

    def metrics(self) -> dict[str, float]:
        """Everything worth logging since the last log step."""
        values = self.processes.mean(self.averager.pop())
        for name, value in values.items():
            if not np.isfinite(value):
                raise broken_down(name, self.env_steps, self.folder)
        own: dict[str, float] = (
            self.envs.faults.metrics() | self.reward.pop() | self.collector.infos.pop() | {"replay/steps": len(self.replay)}
        )
        values |= self.processes.mean(own | self.collector.metrics(), totals=TOTALS)
        values |= self.tracker.metrics()
        values |= {f"model/{name}": value for name, value in self.agent.model.pop_metrics().items()}
        values |= self.timer.metrics()
        values |= {f"curriculum/{name}": value for name, value in self.curriculum.metrics().items()}
        if self.processes.leads:
            chances = zip(self.tasks.ids, self.curriculum.distribution(), strict=True)
            values |= {f"train/probability/{task}": float(p) for task, p in chances}
        values |= self.evaluated
        self.evaluated = {}
        values |= {"updates": float(self.learner.updates), "seconds": self.seconds()}
        return values

    def summary(self) -> dict[str, Any]:
        """`summary.json`, evaluation apart."""
        return {
            "env_steps": self.env_steps,
            "updates": self.learner.updates,
            "wall_seconds": self.seconds_before,
            "evaluation_seconds": self.evaluation.seconds,
            "tasks": {},
            "training": {
                name: {"success": task.success if task.episodes else None, "episodes": task.episodes}
                for name, task in self.tracker.tasks.items()
            },
            "steps_to_threshold": self.tracker.steps_to_threshold(),
            "seconds_to_threshold": self.tracker.seconds_to_threshold(),
        }
