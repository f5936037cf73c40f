"""Dreams: what the model imagines beside what really happened, under the same actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.agent import Agent
from agent.evaluation import seeded
from agent.rewards import LearnedReward
from agent.sequences import Episode
from envs import EnvConfig, TaskSpace, make_envs, render_grid
from envs.spaces.images import to_colours
from world_model.imagination import ImaginationEnv, Starts, previous_history
from world_model.model import Sequences

FRAMES = 10  # columns of the picture at most
PATIENCE = 10_000  # env steps that an episode is followed for
DRAWN: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {"grid": render_grid, "image": to_colours}


@dataclass
class Dream:
    """An episode's real future and the model's, from step `start` on.

    Attributes:
        real, imagined: {key: (H + 1, *shape)} observations; index 0 is the common start.
        reward, imagined_reward: (H,). cont: (H,), predicted probability that the episode goes on.
        ended: whether the real episode terminated at its last step.
    """

    start: int
    real: dict[str, NDArray[Any]]
    imagined: dict[str, NDArray[Any]]
    reward: NDArray[Any]
    imagined_reward: NDArray[Any]
    cont: NDArray[Any]
    ended: bool


def play_episode(
    agent: Agent,
    config: EnvConfig,
    tasks: TaskSpace,
    task_id: str,
    split: str,
    seed: int,
    gamma: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Episode:
    """One episode of the agent on one task, on a layout of `split`; its rewards are those that the agent learns from.

    One that goes on for `PATIENCE` steps, or till `stopped` says so, is left there, neither terminated nor truncated.

    With the learner's discount `gamma` they hold the terms of `env.rewards`, bonuses of counts apart: those are of the run.
    """
    envs = make_envs(config, tasks, 1, split, gamma)
    learned = LearnedReward(config, envs)
    try:
        obs = envs.reset([tasks[task_id].with_seed(seed)])
        state, first = agent.initial_state(1), np.ones(1, bool)
        observed, actions, rewards = [obs], [], []
        with seeded(seed, agent.device):
            while True:
                action, _, state = agent.act(obs, first, state)
                step = envs.step(action)
                obs, first = step.obs, np.zeros(1, bool)
                observed.append(obs)
                actions.append(action[0])
                rewards.append(float(learned.replayed(step)[0]))
                if step.terminated[0] or step.truncated[0] or len(actions) >= PATIENCE or stopped():
                    break
    finally:
        envs.close()
    stacked = {key: np.stack([o[key][0] for o in observed]) for key in obs}
    zeros = np.zeros(len(actions), np.float32)
    return Episode(
        stacked,
        np.array(actions),
        zeros,
        np.array(rewards, np.float32),
        bool(step.terminated[0]),
        bool(step.truncated[0]),
        task_id,
        seed,
        0,
        0,
    )


@torch.no_grad()
def dream(agent: Agent, episode: Episode, horizon: int, seed: int = 0) -> Dream:
    """Imagine the last `horizon` steps of a real episode under its own actions, from what came before them."""
    model = agent.model
    horizon = min(horizon, len(episode))
    start = len(episode) - horizon
    begin = max(0, start - model.config.window)
    context = {key: value[None, begin : start + 1] for key, value in episode.obs.items()}
    length = start + 1 - begin
    first = torch.zeros(1, length, dtype=torch.bool, device=agent.device)
    first[0, 0] = True
    nothing = torch.zeros(1, length, device=agent.device)
    actions = torch.from_numpy(episode.action).to(agent.device)
    obs = {key: x.to(agent.device) for key, x in model.tokenize(context).items()}
    with seeded(seed, agent.device):
        output = model(Sequences(obs, actions[None, begin : start + 1], nothing, first, nothing.bool(), nothing.bool()))
        step = torch.tensor([[length - 1]], device=agent.device)
        history = previous_history(output.h, first)
        starts = Starts(step, output.z[:, -1:], history[:, -1:], first, output.context)
        env = ImaginationEnv(model, horizon, 1, agent.device)
        planned = iter(actions[start:])

        def replayed(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return next(planned)[None], torch.zeros(1, device=z.device)

        rollout = env.imagine(replayed, starts)
    codes = model.latents.split(rollout.z[0])
    return Dream(
        start=start,
        real={key: value[start:] for key, value in episode.obs.items()},
        imagined={key: model.modality(key).detokenize(code) for key, code in codes.items()},
        reward=episode.reward[start:],
        imagined_reward=rollout.reward[0].cpu().numpy(),
        cont=rollout.cont[0].cpu().numpy(),
        ended=episode.terminated,
    )


def difference(imagined: NDArray[Any], real: NDArray[Any], image: bool) -> str:
    """How a dreamt frame differs from the real one, in words: in cells of a grid, in brightness of an image."""
    if np.array_equal(imagined, real):
        return "the same"
    if image:
        return f"{np.abs(imagined.astype(int) - real).mean() / 2.55:.1f} % off"
    return f"{int((imagined != real).any(-1).sum())} cells differ"


def draw_dream(picture: Dream, agent: Agent, episode: Episode, path: Path) -> None:
    """Draw reality above the dream, column by column, into a PNG, with a caption beside it for the report."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pictures = {leaf.key: leaf.kind for leaf in agent.model.spec.observations if leaf.kind in DRAWN}
    vectors = [leaf.key for leaf in agent.model.spec.observations if leaf.kind == "vector"]
    horizon = len(picture.reward)
    columns = np.unique(np.linspace(0, horizon, min(FRAMES, horizon + 1)).round().astype(int))
    rows = 2 * len(pictures) + len(vectors) + 1
    figure = plt.figure(figsize=(1.25 * len(columns) + 0.8, 1.45 * rows + 0.5), layout="constrained")
    layout = figure.add_gridspec(rows, len(columns))
    for g, (key, kind) in enumerate(pictures.items()):
        for row, (name, frames) in enumerate((("real", picture.real[key]), ("dream", picture.imagined[key]))):
            for column, t in enumerate(columns):
                axes = figure.add_subplot(layout[2 * g + row, column])
                axes.imshow(DRAWN[kind](frames[t]))
                axes.set_xticks([])
                axes.set_yticks([])
                if column == 0:
                    axes.set_ylabel(f"{key}\n{name}")
                if row == 0 and g == 0:
                    axes.set_title(f"+{t}", fontsize=9)
                if row == 1 and t > 0:
                    axes.set_xlabel(difference(frames[t], picture.real[key][t], kind == "image"), fontsize=7)
    for v, key in enumerate(vectors):
        axes = figure.add_subplot(layout[2 * len(pictures) + v, :])
        for i in range(picture.real[key].shape[1]):
            (line,) = axes.plot(picture.real[key][:, i], label=f"{key}[{i}] real" if i < 4 else None)
            axes.plot(picture.imagined[key][:, i], "--", color=line.get_color(), label="dream" if i == 0 else None)
        axes.legend(fontsize=7, ncols=3)
        axes.set_ylabel(key)
    axes = figure.add_subplot(layout[-1, :])
    t = np.arange(1, horizon + 1)
    axes.plot(t, picture.reward, "o-", label="reward, real")
    axes.plot(t, picture.imagined_reward, "o--", label="reward, dream")
    axes.plot(t, picture.cont, "s:", label="chance to go on, dream")
    axes.set_xlabel("steps since the dream began")
    axes.legend(fontsize=7, loc="center left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    caption = (
        f"The last {horizon} steps of an episode of {episode.task}, on a layout never trained on. "
        f"Above, what really happened; below, what "
        f"the world model imagined from step {picture.start} on, given only the actions. "
        f"What had not come into view before can only be guessed."
    )
    alt = f"Real and imagined observations of {episode.task} at {len(columns)} steps, with rewards and the chance to go on."
    path.with_suffix(".json").write_text(
        json.dumps({"caption": caption, "alt": alt, "title": "A dream beside what really happened"})
    )
