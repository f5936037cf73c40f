"""How often would the present policy succeed? Imagined from stored starts of episodes, at no env step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.evaluation import seeded
from agent.futures import actor
from agent.replay import Replay
from curriculum.config import ImaginedSuccessConfig
from envs.config import EnvConfig
from envs.errors import UserError
from envs.spaces.actions import no_actions
from world_model.imagination import ImaginationEnv
from world_model.starts import starts_at


def check_rule(config: EnvConfig) -> None:
    """Refuse a run whose successes cannot be read off imagined rewards and ends.

    Raises:
        UserError: another rule than `positive_reward`, or learned rewards that are not the environment's own.
    """
    if config.success != "positive_reward" or config.rewards:
        raise UserError(
            "the curriculum asks for imagined success, which is read off predicted rewards and ends: "
            "give env.success=positive_reward and env.rewards={}"
        )


def success_probability(cont: Tensor, positive: Tensor) -> Tensor:
    """(N,) probability that imagined episodes end, and end with a positive reward, within their H steps.

    Args:
        cont: (N, H), probability that a step does not end the episode. positive: (N, H), that its reward is above 0.
    """
    alive = torch.cat([torch.ones_like(cont[:, :1]), cont.cumprod(1)[:, :-1]], 1)
    return (alive * (1 - cont) * positive).sum(1)


@torch.no_grad()
def imagine_success(agent: Agent, obs: dict[str, np.ndarray], horizon: int, seed: int) -> np.ndarray:
    """(N,) success probability of the sampling policy from first observations {key: (N, *shape)}, one rollout each.

    What has not ended after `horizon` steps counts as a failure.
    """
    model, device = agent.model, agent.device
    n = len(next(iter(obs.values())))
    with seeded(seed, device), model.autocast():
        tokens = {key: x.to(device) for key, x in model.tokenize({key: value[:, None] for key, value in obs.items()}).items()}
        first = torch.ones(n, 1, dtype=torch.bool, device=device)
        taken = torch.as_tensor(no_actions(model.spec.action, n), device=device)[:, None]
        z, h, memory = model.prefill(tokens, taken, first)
        starts = starts_at(torch.zeros(n, 1, dtype=torch.int64, device=device), z, h, first, memory)
        rollout = ImaginationEnv(model, horizon, n, device).imagine(actor(agent, n, "sample"), starts)
        positive = model.reward_head.positive(rollout.h[:, 1:, : model.config.width])
    return success_probability(rollout.cont.float(), positive.float()).double().cpu().numpy()


def imagined_signals(agent: Agent, replay: Replay, config: ImaginedSuccessConfig, seed: int) -> dict[str, dict[str, float]]:
    """`{task: {"imagined_success": probability}}` of every task that has an episode in memory."""
    rng = np.random.default_rng(seed)
    found = {task: replay.first_observations(i, config.starts, rng) for i, task in enumerate(replay.task_ids)}
    stored = {task: obs for task, obs in found.items() if obs}
    if not stored:
        return {}
    keys = next(iter(stored.values()))
    together = {key: np.concatenate([obs[key] for obs in stored.values()]) for key in keys}
    p = imagine_success(agent, together, config.horizon, seed).reshape(len(stored), config.starts)
    # Sums of float32 probabilities may lie above 1 by a rounding error.
    return {task: {"imagined_success": float(mean)} for task, mean in zip(stored, p.mean(1).clip(0, 1), strict=True)}
