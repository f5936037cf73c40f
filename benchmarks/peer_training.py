"""One training run of the peer: Stable-Baselines3's PPO on our environments, and its evaluation on held-out layouts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation import evaluate
from agent.metrics import SuccessTracker
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_summary import peer_summary
from benchmarks.store import write_json
from curriculum.config import CurriculumConfig
from curriculum.sequential import Sequential
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.errors import UserError


def train(config: PeerConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one peer; write `metrics.jsonl` (a line a rollout) and `summary.json` into `folder`.

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
    tracker = SuccessTracker(tasks.ids, config.window, config.threshold)
    curriculum = Sequential(tasks, CurriculumConfig("sequential", config.threshold, config.advance_window, config.revisit))
    envs = make_envs(env_config, tasks, split="train")
    rule = SuccessRule.parse(config.success)
    started = time.perf_counter()
    env = CurriculumVecEnv(envs, curriculum, tracker, rule, lambda: time.perf_counter() - started, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)

    class StopWhenMastered(BaseCallback):
        def _on_rollout_start(self) -> None:
            line = {"env_steps": env.env_steps, "seconds": time.perf_counter() - started, **tracker.metrics()}
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

        def _on_step(self) -> bool:
            return tracker.steps_to_threshold()[tasks.hardest.id] is None and env.env_steps < config.max_env_steps

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
    learner.learn(config.max_env_steps, callback=StopWhenMastered())
    wall_seconds = time.perf_counter() - started
    env.close()

    agent: Any = PeerAgent(learner.policy, envs.spec)
    sampled, greedy = (
        evaluate(agent, env_config, tasks, config.eval_episodes, config.split, policy, seed) for policy in ("sample", "greedy")
    )
    summary = peer_summary(env.env_steps, learner._n_updates, wall_seconds, tracker, sampled, greedy)
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
