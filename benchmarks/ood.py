"""Are observations unlike anything trained on recognised? The novelty score on DoorKey as trained beside changed environments.

    python -m benchmarks.ood [--checkpoint RUN_FOLDER]

An agent of DoorKey 5x5 and 6x6 plays both, on layouts held out, and environments that it never saw. Its score of observations
(`agent.novelty`) is fitted on episodes of its own replay. Scores of the unchanged tasks against those of a changed one make a
ROC, by observations and by whole episodes. Missions are left as DoorKey's: a strange one would give a strange task away at once.
Without a checkpoint the agent is trained first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from agent.agent import Agent
from agent.checkpoint import load_meta, resolve
from agent.foresight import Foresight, foresee
from agent.loading import load_agent, trained_config
from agent.novelty import Novelty, auc, episode_means, roc
from agent.playing import play_episode
from agent.sequences import Episode
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import train_run
from envs import EnvConfig, make_task_space
from envs.errors import UserError

TASKS = ("DoorKey-5x5", "DoorKey-6x6")
TRAIN = ("env=doorkey", f"env.tasks=[{','.join(TASKS)}]")
LONGEST = 60  # steps of an episode that are looked at: one that goes in circles should not outweigh the others
EPISODES = 20  # of each environment
POINTS = 21  # of a recorded ROC
YELLOW, PURPLE = 4, 3
COLOUR = 1  # channel of a cell

Change = Callable[[Episode, np.random.Generator], Episode]


def noisy(episode: Episode, rng: np.random.Generator) -> Episode:
    """One cell in twenty of every view shows another cell of it."""
    image = episode.obs["image"].copy()
    cells = image.reshape(len(image), -1, image.shape[-1])
    hit = rng.random(cells.shape[:2]) < 0.05
    other = np.take_along_axis(cells, rng.permuted(np.tile(np.arange(cells.shape[1]), (len(cells), 1)), axis=1)[..., None], 1)
    cells[hit] = other[hit]
    return _showing(episode, image)


def recoloured(episode: Episode, rng: np.random.Generator) -> Episode:
    """The yellow door and its key are purple."""
    image = episode.obs["image"].copy()
    image[..., COLOUR] = np.where(image[..., COLOUR] == YELLOW, PURPLE, image[..., COLOUR])
    return _showing(episode, image)


def unchanged(episode: Episode, rng: np.random.Generator) -> Episode:
    return episode


def _showing(episode: Episode, image: np.ndarray) -> Episode:
    return Episode(**{**vars(episode), "obs": episode.obs | {"image": image}})


# variant: another environment, or DoorKey itself, and what is done to what it shows
CHANGED: dict[str, tuple[str | None, Change]] = {
    "noise": (None, noisy),
    "colours": (None, recoloured),
    "larger": ("MiniGrid-DoorKey-8x8-v0", unchanged),
    "lava_gap": ("MiniGrid-LavaGapS6-v0", unchanged),
    "crossing": ("MiniGrid-SimpleCrossingS9N1-v0", unchanged),
    "four_rooms": ("MiniGrid-FourRooms-v0", unchanged),
}


def play(agent: Agent, env: EnvConfig, task: str, episodes: int, seed: int, mission: np.ndarray | None = None) -> list[Episode]:
    """Episodes of the agent on held-out layouts, at most `LONGEST` steps of each; with `mission`, shown in place of its own."""
    played = []
    for index in range(episodes):
        episode = play_episode(agent, env, make_task_space(env), task, "test", 1000 * seed + index, longest=LONGEST)
        if mission is not None:
            texts = np.broadcast_to(mission, (len(episode) + 1, *mission.shape)).copy()
            episode = Episode(**{**vars(episode), "obs": episode.obs | {"mission": texts}})
        played.append(episode)
    return played


def measure(run_folder: Path, seed: int, episodes: int) -> dict[str, Any]:
    """`{variant: {auc, auc_episodes, roc, episodes, unknown}}` of the agent in a run folder."""
    path = resolve(run_folder)
    agent, meta = load_agent(path, "cpu"), load_meta(path)
    config = trained_config(meta, path, ("env", "hierarchy"))
    gamma, rng = config.hierarchy.actor_critic.gamma, np.random.default_rng(seed)

    def seen(played: list[Episode]) -> list[Foresight]:
        return [foresee(agent, episode, gamma) for episode in played]

    novelty = Novelty.of_replay(agent, run_folder / "replay")
    if novelty is None:
        raise UserError(f"{run_folder} has no episodes in its replay, which say what is usual")
    usual = [episode for task in TASKS for episode in play(agent, config.env, task, episodes // len(TASKS), seed)]
    mission = usual[0].obs["mission"][0]
    familiar = seen(usual)
    result: dict[str, Any] = {}
    for variant, (env_id, change) in CHANGED.items():
        strange = usual if env_id is None else play(agent, EnvConfig(id=env_id, holdout=False), env_id, episodes, seed, mission)
        foresights = seen([change(episode, rng) for episode in strange])
        result[variant] = compare([novelty(f) for f in familiar], [novelty(f) for f in foresights]) | {
            "auc_surprise_alone": auc(*(np.concatenate([f.surprise for f in group]) for group in (familiar, foresights))),
            "unknown_share": float(np.mean(np.concatenate([f.unknown for f in foresights]))),
        }
    return {"changed": result, "reached": min(found["auc"] for found in result.values())}


def compare(usual: list[np.ndarray], strange: list[np.ndarray]) -> dict[str, Any]:
    """Scores by episode -> `{auc, auc_episodes, roc, observations}`; of the ROC, true positive rates at even steps."""
    flat, flat_usual = np.concatenate(strange), np.concatenate(usual)
    false, true = roc(flat_usual, flat)
    last = np.append(np.diff(false) > 0, True)  # of points one above the other, the highest
    rates = np.interp(np.linspace(0, 1, POINTS), false[last], true[last])
    return {
        "auc": auc(flat_usual, flat),
        "auc_episodes": auc(episode_means(usual), episode_means(strange)),
        "roc": [round(float(rate), 4) for rate in rates],
        "observations": [len(flat_usual), len(flat)],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", help="the run folder of an agent of DoorKey 5x5 and 6x6; without it one is trained")


def plan(options: Options) -> list[Run]:
    given = options.arguments.get("checkpoint")
    overrides = [*TRAIN, *options.overrides]
    if options.quick:
        overrides += ["model=debug", "train.env_steps=1200", "train.warmup_updates=4", "eval.episodes=2", "eval.video=false"]
    episodes = 4 if options.quick else EPISODES

    def run(seed: int) -> Run:
        def execute(context: Context) -> dict[str, Any]:
            torch.set_num_threads(context.threads)
            folder = Path(given) if given else context.folder / "agent"
            if not given:
                train_run([*overrides, f"seed={seed}"], folder, context.threads, context.report, context.stop)
            return measure(folder, seed, episodes)

        agent = {"agent": "given"} if given else {"agent": "trained", "overrides": overrides}
        return Run("doorkey", seed, {**agent, "episodes": episodes, "changed": list(CHANGED)}, execute)

    return [run(seed) for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    found = [record["figures"]["changed"] for record in records if record["figures"]]
    names = ("auc", "auc_episodes", "auc_surprise_alone", "unknown_share")
    return {
        "changed": {
            variant: {name: float(np.mean([run[variant][name] for run in found])) for name in names}
            for variant in (CHANGED if found else ())
        }
    }


def show(result: dict[str, Any]) -> Table:
    table = Table("changed environment", "AUC", "AUC, whole episodes", "AUC of surprise alone", "unknown symbols")
    table.title = "Told from DoorKey as trained (0.5: not at all, 1: always)"
    for variant, found in result["changed"].items():
        table.add_row(variant, *(f"{value:.3f}" for value in found.values()))
    return table


BENCHMARK = Benchmark(
    "ood",
    "Are observations unlike anything trained on recognised? ROC of the novelty score, DoorKey beside changed environments.",
    plan,
    summarise,
    show,
    seeds=(1, 2, 3),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
