"""One training run of DreamerV3 as sheeprl has it, on our environments, and its evaluation on held-out layouts.

Runs in the virtual environment of `benchmarks.dreamerv3`, which has sheeprl and no TorchRL.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from agent.evaluation import evaluate
from agent.metrics import SuccessTracker
from benchmarks.dreamerv3_config import OBSERVATION, DreamerV3Config, sheeprl_overrides
from benchmarks.dreamerv3_env import SHARED, Ledger, Mastered
from benchmarks.peer_encoding import Encoder
from benchmarks.peer_summary import peer_summary
from benchmarks.store import write_json
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.errors import UserError
from envs.spaces.specs import EnvSpec


class DreamerV3Agent:
    """A trained player of sheeprl's as `agent.evaluation` plays it. It holds its latent states itself."""

    device = torch.device("cpu")

    def __init__(self, player: Any, spec: EnvSpec) -> None:
        self._player = player
        self._encode = Encoder(spec)

    def initial_state(self, num_envs: int) -> None:
        self._player.num_envs = num_envs
        self._player.init_states()

    @torch.no_grad()
    def act(
        self, obs: dict[str, np.ndarray], first: np.ndarray, state: None, mode: str = "sample"
    ) -> tuple[np.ndarray, None, None]:
        """`{modality key: (N, *shape)}` -> actions (N,), and nothing in the place of log-probabilities and state."""
        started = np.flatnonzero(first).tolist()
        if started:  # an empty list would start all of them
            self._player.init_states(started)
        vectors = torch.from_numpy(self._encode(obs))[None]  # (1, N, size)
        (one_hot,) = self._player.get_actions({OBSERVATION: vectors}, greedy=mode == "greedy")
        return one_hot[0].argmax(-1).numpy().astype(np.int64), None, None


def train(config: DreamerV3Config, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate; write `metrics.jsonl` and `summary.json` into `folder`.

    Returns:
        The summary of `peer_summary`, with `parameters` of each part and the `versions` it ran on.
    """
    env_config = EnvConfig(suite=config.suite, tasks=[config.task], success=config.success)
    tasks = make_task_space(env_config)
    tracker = SuccessTracker(tasks.ids, config.window, config.threshold)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    ledger = Ledger(
        tracker,
        SuccessRule.parse(config.success),
        folder / "metrics.jsonl",
        config.log_every,
        lambda: time.perf_counter() - started,
    )
    SHARED.ledger = ledger
    parts = run_sheeprl(sheeprl_overrides(config, seed, folder / "sheeprl"), config.experiment, ledger)
    wall_seconds = time.perf_counter() - started
    SHARED.ledger = None

    envs = make_envs(env_config, tasks, num_envs=1)
    agent: Any = DreamerV3Agent(parts["player"], envs.spec)
    envs.close()
    sampled, greedy = (
        evaluate(agent, env_config, tasks, config.eval_episodes, config.split, policy, seed) for policy in ("sample", "greedy")
    )
    summary = {
        **peer_summary(ledger.env_steps, ledger.updates, wall_seconds, tracker, sampled, greedy),
        "parameters": {name: _parameters(part) for name, part in parts.items() if name != "player"},
        "versions": {name: version(name) for name in ("sheeprl", "torch", "gymnasium", "minigrid")},
    }
    write_json(folder / "summary.json", summary)
    return summary


def run_sheeprl(overrides: list[str], experiment: str, ledger: Ledger) -> dict[str, Any]:
    """Train as `sheeprl OVERRIDES` does, till its budget is spent or the task is mastered; answer the trained parts."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from sheeprl.cli import check_configs, run_algorithm
    from sheeprl.utils.utils import dotdict

    module: Any = import_module(f"sheeprl.algos.{experiment}.{experiment}")
    parts: dict[str, Any] = {}
    build, update = module.build_agent, module.train

    def build_and_keep(*args: Any, **kwargs: Any) -> Any:
        built = build(*args, **kwargs)
        parts.update(zip(("world_model", "actor", "critic", "target_critic", "player"), built, strict=True))
        return built

    # sheeprl gives its agent out in checkpoints alone, and does not tell its updates where nothing is logged.
    module.build_agent, module.train = build_and_keep, _counted(update, ledger)
    try:
        with initialize_config_module("sheeprl.configs", version_base="1.3"):
            composed = compose("config", overrides, return_hydra_config=False)
        settings = dotdict(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
        check_configs(settings)
        with suppress(Mastered):
            run_algorithm(settings)
    finally:
        module.build_agent, module.train = build, update
    return parts


def _counted(update: Callable[..., Any], ledger: Ledger) -> Callable[..., Any]:
    def counting(*args: Any, **kwargs: Any) -> Any:
        ledger.updates += 1
        return update(*args, **kwargs)

    return counting


def _parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def main() -> int:
    """Train as `{"config": ..., "seed": ..., "folder": ...}`, the only argument, says; answer the exit code."""
    given = json.loads(sys.argv[1])
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given["config"].items()}
    try:
        train(DreamerV3Config(**settings), given["seed"], Path(given["folder"]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
