"""One training run of the peer: Stable-Baselines3's PPO on our environments, and its evaluation on held-out layouts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation import StepLimit, TaskResult, evaluate
from agent.metrics import SuccessTracker
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_summary import peer_summary
from benchmarks.store import write_json
from curriculum.config import CurriculumConfig
from curriculum.sequential import Sequential
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.errors import UserError

LEARNER = "PPO"


class Evaluation:
    """Plays the held-out layouts of the tasks trained on and of those of `eval_also`, as `agent.periodic` does.

    Attributes:
        seconds: spent here, none of which is training's.
    """

    def __init__(self, config: PeerConfig, env_config: EnvConfig, seed: int) -> None:
        self.config, self.seed = config, seed if config.eval_seed < 0 else config.eval_seed
        names = [*config.tasks, *config.eval_also]
        self.env_config = replace(env_config, tasks=names, num_envs=config.eval_envs or config.num_envs)
        self.tasks = make_task_space(self.env_config)
        self.next, self.seconds = config.eval_every, 0.0

    def due(self, env_steps: int) -> bool:
        return 0 < self.next <= env_steps

    def on_the_way(self, agent: Any, env_steps: int) -> Mapping[str, float]:
        """`eval/success/TASK` of one that is due."""
        began = time.perf_counter()
        results = self(agent, self.config.eval_every_episodes, "sample")
        self.seconds += time.perf_counter() - began
        self.next = (env_steps // self.config.eval_every + 1) * self.config.eval_every
        return {f"eval/success/{task}": float(np.mean(result.success)) for task, result in results.items()}

    def __call__(self, agent: Any, episodes: int, policy: str) -> dict[str, TaskResult]:
        limit = StepLimit(self.config.eval_max_steps)
        return evaluate(agent, self.env_config, self.tasks, episodes, self.config.split, policy, self.seed, limit=limit)


def train(config: PeerConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one peer; write `config.yaml`, `metrics.jsonl` (a line a rollout) and `summary.json` into `folder`, so
    that `job=compare` can read it.

    Returns:
        The summary: `env_steps`, `updates`, `wall_seconds` (training alone), `tasks` (evaluation), `steps_to_threshold`,
        `seconds_to_threshold`, `training` (training success).
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    from benchmarks.peer_env import CurriculumVecEnv, PeerAgent

    torch.set_num_threads(1)  # networks this small are slower on several
    env_config = EnvConfig(suite=config.suite, tasks=list(config.tasks), num_envs=config.num_envs, success=config.success)
    tasks = make_task_space(env_config)
    evaluation = Evaluation(config, env_config, seed)
    tracker = SuccessTracker(tasks.ids, config.window, config.threshold)
    curriculum = Sequential(tasks, CurriculumConfig("sequential", config.threshold, config.advance_window, config.revisit))
    envs = make_envs(env_config, tasks, split="train")
    rule = SuccessRule.parse(config.success)
    started = time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - started - evaluation.seconds

    env = CurriculumVecEnv(envs, curriculum, tracker, rule, clock, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, too.
    write_json(
        folder / "config.yaml", {"seed": seed, "learner": LEARNER, "curriculum": {"name": "sequential"}, "peer": asdict(config)}
    )

    def log(values: Mapping[str, float]) -> None:
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"env_steps": env.env_steps, **values}) + "\n")

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            chances = zip(tasks.ids, curriculum.distribution().tolist(), strict=True)
            likely = {f"train/probability/{task}": p for task, p in chances}
            log({"seconds": clock(), **tracker.metrics(), **likely})

        def _on_step(self) -> bool:
            if evaluation.due(env.env_steps):
                log(evaluation.on_the_way(PeerAgent(self.model.policy, envs.spec), env.env_steps))
            mastered = config.stop_at_mastery and tracker.steps_to_threshold()[tasks.hardest.id] is not None
            return not mastered and env.env_steps < config.max_env_steps

    learner = PPO(
        "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={"net_arch": list(config.hidden), "activation_fn": getattr(torch.nn, config.activation)},
        seed=seed,
        device="cpu",
    )
    learner.learn(config.max_env_steps, callback=Watch())
    wall_seconds = clock()
    env.close()

    agent: Any = PeerAgent(learner.policy, envs.spec)
    sampled, greedy = (evaluation(agent, config.eval_episodes, policy) for policy in ("sample", "greedy"))
    summary = peer_summary(env.env_steps, learner._n_updates, wall_seconds, tracker, sampled, greedy)
    summary["evaluation_seconds"] = round(evaluation.seconds, 2)
    write_json(folder / "summary.json", summary)
    return summary


def main() -> int:
    """Train as `{"config": ..., "seed": ..., "folder": ...}`, the only argument, says; answer the exit code."""
    given = json.loads(sys.argv[1])
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given["config"].items()}
    config = PeerConfig(**settings)
    try:
        train(config, given["seed"], Path(given["folder"]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
