"""What the prior of a grid is worth: by a map, by attention to the present view, from one vector; held-out accuracy by updates.

    python -m benchmarks.grid_prior [--seeds 101 102 103] [--quick]

All models learn from the same random episodes of DoorKey-6x6 with the same batches; only the prior of the grid differs.
"""

from __future__ import annotations

import sys
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.table import Table

from agent.build import build_agent, burn_in
from agent.collector import Collector
from agent.config import RunConfig
from agent.learner import Learner
from agent.replay import Replay, SampleMix
from agent.rewards import LearnedReward
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from curriculum import CurriculumConfig, make_curriculum
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from world_model.config import ModelConfig
from world_model.engines.local import LocalEngine
from world_model.heads import FlatPrior
from world_model.latents import module_name

TASK = "DoorKey-6x6"
VARIANTS = ("map", "attention", "vector")
CHECKS = (50, 100, 200, 400, 800)  # updates at which the held-out accuracy is taken
STEPS = 6_000  # random env steps to learn from, and a third of that to be judged by


def record(config: RunConfig, steps: int, split: str, seed: int) -> tuple[Replay, Any]:
    """A replay of random episodes on layouts of `split`, and the agent that played them."""
    torch.manual_seed(seed)
    tasks = make_task_space(config.env)
    envs = make_envs(config.env, tasks, split=split)
    agent, _ = build_agent(config, envs.spec, torch.device("cpu"))
    torch.manual_seed(seed)  # again: models draw unequal numbers of weights, and all are to learn from the same episodes
    replay = Replay(envs.spec, envs.num_envs, 2 * steps, tasks.ids)
    curriculum = make_curriculum(CurriculumConfig(name="uniform"), tasks)
    rng, reward = np.random.default_rng(seed), LearnedReward(config.env, envs)
    collector = Collector(envs, agent, replay, curriculum, SuccessRule.parse("positive_reward"), reward, rng)
    collector.start()
    while collector.steps < steps:
        collector.step("random")
    envs.close()
    return replay, agent


def accuracy_by_updates(variant: str, seed: int, steps: int, checks: tuple[int, ...]) -> dict[str, Any]:
    """`{updates: held-out changed-cell accuracy}` of one model."""
    model_config = ModelConfig(maps=variant == "map")
    config = RunConfig(env=EnvConfig(suite="doorkey", tasks=[TASK], reward="sign"), model=model_config)
    replay, agent = record(config, steps, "train", seed)
    judge, _ = record(config, steps // 3, "validation", seed + 1)
    torch.manual_seed(seed)
    model = agent.model
    if variant == "vector":
        grid = next(block for block in model.latents.blocks if block.kind == "grid")
        model.priors[module_name(grid.key)] = FlatPrior(grid, config.model.width, config.model)
    engine = LocalEngine(model, torch.device("cpu"))
    learner = Learner(engine, agent.hierarchy, config.hierarchy, config.train.batch, torch.device("cpu"))
    rng, mix = np.random.default_rng(seed), SampleMix(0.0, 0.0, before=burn_in(config, model))
    held_out = learner.sequences(judge.sample(64, config.train.length, np.random.default_rng(0), mix))
    accuracy = {}
    for update in range(1, checks[-1] + 1):
        engine.train_step(learner.sequences(replay.sample(config.train.batch, config.train.length, rng, mix)))
        if update in checks:
            with torch.no_grad():
                accuracy[str(update)] = float(model(held_out).metrics["changed_accuracy/image"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"changed_accuracy": accuracy, "parameters": parameters, "reached": accuracy[str(checks[-1])]}


def plan(options: Options) -> list[Run]:
    steps, checks = (2_400, (2, 4)) if options.quick else (STEPS, CHECKS)

    def run(variant: str, seed: int) -> Run:
        def execute(context: Context) -> dict[str, Any]:
            torch.set_num_threads(context.threads)
            return accuracy_by_updates(variant, seed, steps, checks)

        return Run(variant, seed, {"task": TASK, "steps": steps, "checks": list(checks)}, execute)

    return [run(variant, seed) for seed in options.seeds for variant in VARIANTS]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for variant in VARIANTS:
        curves = [r["figures"]["changed_accuracy"] for r in records if r["variant"] == variant and r["figures"]]
        updates = curves[0] if curves else {}
        result[variant] = {update: mean(curve[update] for curve in curves) for update in updates}
    return {"changed_accuracy": result}


def show(result: dict[str, Any]) -> Table:
    curves = result["changed_accuracy"]
    table = Table("updates", *VARIANTS, title=f"Changed cells of {TASK} predicted right, held-out layouts")
    for update in curves[VARIANTS[0]]:
        table.add_row(update, *(f"{curves[variant].get(update, float('nan')):.3f}" for variant in VARIANTS))
    return table


BENCHMARK = Benchmark(
    "grid_prior",
    "Priors of a grid, by a map, by attention and from one vector: held-out changed-cell accuracy by updates.",
    plan,
    summarise,
    show,
    seeds=(101, 102, 103),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
