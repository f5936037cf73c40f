"""Imagined futures of stored steps: under the actions that were really taken, or under the policy's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.evaluation import seeded
from agent.sequences import Episode
from hierarchy.base import PolicyState
from world_model.imagination import ImaginationEnv, Policy
from world_model.model import WorldModel
from world_model.starts import starts_at


@dataclass(frozen=True)
class Start:
    """Observation `step` of an episode, from which its future is imagined; 0 is its first."""

    episode: Episode
    step: int


@dataclass
class Futures:
    """N imagined futures of each of S starts.

    Attributes:
        z: (S, N, H + 1, G) codes; index 0 is the start, as it was observed.
        action: (S, N, H, *action shape). log_prob: (S, N, H).
        reward: (S, N, H), expected, on arriving at the next step. cont: (S, N, H), probability that it does not terminate.
    """

    z: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    cont: Tensor


@torch.no_grad()
def imagine_futures(
    agent: Agent,
    starts: Sequence[Start],
    horizon: int,
    context: int = 0,
    samples: int = 1,
    seed: int = 0,
    acting: str | None = None,
    likeliest: bool = False,
) -> Futures:
    """Roll the world model out from stored steps, `samples` times each.

    Args:
        starts: where from. What is imagined under real actions past an episode's end means nothing.
        context: steps before a start that the model is shown; 0: all that its layers of attention reach back to. Fewer at an
            episode's beginning. Maps hold these steps alone, where in acting they hold the whole episode.
        acting: `sample` or `greedy`: the policy chooses the actions; None: those of the episode.
        likeliest: go on with the likeliest codes in place of drawn ones.
        seed: of all that is drawn; the caller's random state is left alone.
    """
    model, device = agent.model, agent.device
    reach = context or model.config.layers * (model.config.window - 1)
    lengths = [min(start.step, reach) + 1 for start in starts]
    length = max(lengths)
    first = torch.zeros(len(starts), length, dtype=torch.bool, device=device)
    first[:, 0] = True
    spans = list(zip(starts, lengths, strict=True))
    shown = {
        leaf.key: np.stack([_before(start.episode.obs[leaf.key], start.step, number, length) for start, number in spans])
        for leaf in model.spec.observations
    }
    actions = np.stack([_before(_padded(start.episode.action), start.step, number, length) for start, number in spans])
    with seeded(seed, device):
        obs = {key: x.to(device) for key, x in model.tokenize(shown).items()}
        taken = torch.from_numpy(actions).to(device)
        z, h, memory = model.prefill(obs, taken, first)
        step = torch.tensor(lengths, device=device)[:, None].expand(-1, samples) - 1  # (S, N)
        env = ImaginationEnv(model, horizon, len(starts) * samples, device)
        env.likeliest = likeliest
        policy = actor(agent, len(starts) * samples, acting) if acting else _replayed(starts, horizon, samples, device)
        rollout = env.imagine(policy, starts_at(step, z, h, first, memory))
    shape = (len(starts), samples)
    return Futures(*(x.unflatten(0, shape) for x in (rollout.z, rollout.action, rollout.log_prob, rollout.reward, rollout.cont)))


def observations(model: WorldModel, z: Tensor) -> dict[str, np.ndarray]:
    """Codes (..., G) as observations {key: (..., *shape)}, in the adapter's format: what is absent is zeros."""
    codes, there = model.latents.split(z), model.latents.present(z)
    found = {}
    for key in (leaf.key for leaf in model.spec.observations):
        found[key] = model.modality(key).detokenize(codes[key])
        if key in there:
            found[key][~there[key].cpu().numpy()] = 0
    return found


def _padded(action: np.ndarray) -> np.ndarray:
    """One more, for an episode's last observation, at which none was taken."""
    return np.concatenate([action, np.zeros_like(action, shape=(1, *action.shape[1:]))])


def _before(values: np.ndarray, step: int, number: int, length: int) -> np.ndarray:
    """The `number` records up to `step`, filled up to `length` with the last of them, which nothing attends to."""
    part = values[step + 1 - number : step + 1]
    return np.concatenate([part, np.repeat(part[-1:], length - number, axis=0)])


def _after(action: np.ndarray, step: int, number: int) -> np.ndarray:
    part = action[step : step + number]
    return np.concatenate([part, np.zeros_like(action, shape=(number - len(part), *action.shape[1:]))])


def _replayed(starts: Sequence[Start], horizon: int, samples: int, device: torch.device) -> Policy:
    """The actions really taken after each start, and any after those."""
    real = np.stack([_after(start.episode.action, start.step, horizon) for start in starts])  # (S, H, *shape)
    planned = iter(torch.from_numpy(real).to(device).repeat_interleave(samples, 0).unbind(1))

    def replayed(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return next(planned), torch.zeros(len(z), device=z.device)

    return replayed


def actor(agent: Agent, number: int, mode: str) -> Policy:
    """The agent's policy, which decides anew at the start."""
    state: PolicyState = agent.hierarchy.initial_state(number)
    first = torch.ones(number, dtype=torch.bool, device=agent.device)

    def act(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal state, first
        action, log_prob, state = agent.hierarchy.act(z, h, state, first, greedy=mode == "greedy")
        first = torch.zeros_like(first)
        return action, log_prob.float()

    return act
