"""One training run of the peer: Stable-Baselines3's PPO on our environments, and its evaluation on held-out layouts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.criterion import Mastery
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_curriculum import SequentialTasks
from benchmarks.store import write_json
from envs.errors import UserError


def train(config: PeerConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one peer; write `metrics.jsonl` (a line a rollout) and `summary.json` into `folder`.

    Returns:
        The summary: `env_steps`, `updates`, `wall_seconds` (training alone), `tasks` (evaluation), `steps_to_threshold`,
        `seconds_to_threshold`, `training_episodes`.
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    from benchmarks.peer_env import CurriculumVecEnv, evaluate
    from envs import EnvConfig, SuccessRule, make_envs, make_task_space

    torch.set_num_threads(1)  # networks this small are slower on several
    env_config = EnvConfig(suite=config.suite, tasks=list(config.tasks), num_envs=config.num_envs, success=config.success)
    tasks = make_task_space(env_config)
    rule = SuccessRule.parse(config.success)
    mastery = Mastery(tasks.ids, config.window, config.threshold)
    rng = np.random.default_rng(seed)
    curriculum = SequentialTasks(tasks, mastery, config.advance_window, config.threshold, config.revisit, rng)
    envs = make_envs(env_config, tasks, split="train")
    started = time.perf_counter()
    env = CurriculumVecEnv(envs, curriculum, mastery, rule, lambda: time.perf_counter() - started)
    folder.mkdir(parents=True, exist_ok=True)

    class StopWhenMastered(BaseCallback):
        def _on_rollout_start(self) -> None:
            success = {f"success/{task}": mastery.success(task) for task in tasks.ids}
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"env_steps": env.env_steps, "task": curriculum.current.id, **success}) + "\n")

        def _on_step(self) -> bool:
            return mastery.steps[tasks.hardest.id] is None and env.env_steps < config.max_env_steps

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

    held_out = make_envs(env_config, tasks, config.eval_envs, split=config.split)
    evaluation: dict[str, Any] = {}
    for task in tasks.ids:
        figures: dict[str, float] = {}
        for name, greedy in (("", False), ("_greedy", True)):

            def act(obs: np.ndarray, greedy: bool = greedy) -> np.ndarray:
                return learner.predict(obs, deterministic=greedy)[0]

            found = evaluate(held_out, task, config.eval_episodes, act, rule, np.random.default_rng(seed))
            figures |= {f"{key}{name}": value for key, value in found.items()}
        evaluation[task] = {**figures, "episodes": config.eval_episodes}
    held_out.close()
    summary = {
        "env_steps": env.env_steps,
        "updates": learner._n_updates,
        "wall_seconds": round(wall_seconds, 2),
        "tasks": evaluation,
        "steps_to_threshold": mastery.steps,
        "seconds_to_threshold": mastery.seconds,
        "training_episodes": mastery.episodes,
    }
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
