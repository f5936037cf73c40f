"""What a trained agent foresaw at every step of a real episode, beside what came."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.sequences import Episode
from world_model.mapping import Maps
from world_model.starts import previous_history
from world_model.symbols import UNKNOWN

PIECE = 256  # steps of an episode taken at once

Numbers = NDArray[np.float64]


@dataclass
class Foresight:
    """T steps of an episode; index t is about arriving at step t + 1, but for `value`, `returns` and `valued`.

    Attributes:
        reward: expected reward. cont: predicted probability of going on, that is, not to terminate there.
        paid: what the policy learns from: the real reward, and what news and the model's disagreement are worth to it.
        value: of the state at t, NaN from a hierarchy that has none. returns: discounted `paid` from t on, bootstrapped from the
            value of the last state where the episode did not terminate.
        surprise: negative log-likelihood of the next observation's codes under the prior, in nats.
        unknown: share of the next observation's changing symbols that no table knows.
    """

    reward: Numbers
    cont: Numbers
    paid: Numbers
    value: Numbers
    returns: Numbers
    surprise: Numbers
    unknown: Numbers


def discounted(reward: NDArray[np.floating], last: float, gamma: float) -> Numbers:
    """Returns (T,) of rewards (T,), `last` being the value of what comes after them."""
    returns = np.zeros(len(reward))
    for t in reversed(range(len(reward))):
        last = returns[t] = reward[t] + gamma * last
    return returns


@torch.no_grad()
def foresee(agent: Agent, episode: Episode, gamma: float, discovery: float = 0.0) -> Foresight:
    """One pass over an episode of T steps (T + 1 observations); nothing is sampled. `discovery`: what news is worth."""
    context = agent.model.config.layers * agent.model.config.window  # as far back as a step can look, layer by layer
    pieces, maps = [], agent.model.maps.zeros(1, agent.device)
    for t in range(0, len(episode), PIECE):
        piece, maps = _piece(agent, episode, max(0, t - context), t, min(t + PIECE, len(episode)), maps)
        pieces.append(piece)
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0] if name != "last"}
    joined["paid"] = episode.reward + discovery * joined.pop("news") + agent.hierarchy.explores * joined.pop("disagreement")
    last = 0.0 if episode.terminated else float(np.nan_to_num(pieces[-1]["last"][0]))
    found = Foresight(**joined, returns=discounted(joined["paid"], last, gamma))
    assert all(len(getattr(found, field.name)) == len(episode) for field in fields(found))
    return found


def _piece(agent: Agent, episode: Episode, begin: int, start: int, end: int, maps: Maps) -> tuple[dict[str, Numbers], Maps]:
    """Steps `start` to `end` - 1, with those from `begin` on as context: figures, and the maps after from those before."""
    model, device = agent.model, agent.device
    count = end - begin + 1  # observations
    obs = {key: x.to(device) for key, x in model.tokenize({k: v[None, begin : end + 1] for k, v in episode.obs.items()}).items()}
    taken = torch.as_tensor(episode.action[begin:end], device=device)
    action = torch.cat([taken, torch.zeros_like(taken[:1])])[None]  # what follows the last observation is not looked at
    first = torch.zeros(1, count, dtype=torch.bool, device=device)
    first[0, 0] = True
    z, h, context = model.prefill(obs, action, first)
    surprise = torch.zeros(count - 1, device=device)
    after, there = model.latents.split(z[0, 1:]), model.latents.present(z[0, 1:])
    own = slice(start - begin, None)
    codes, going_on = model.latents.split(z[:, own]), torch.zeros_like(first[:, own])
    found, before = model.maps.scan(codes, h[:, own], action[:, own], going_on, maps)
    recalled = {key: torch.nn.functional.pad(x[0, :-1], (0, 0, 0, 0, start - begin, 0)) for key, x in found.items()}
    for key, error in model.surprise(h[0, :-1], z[0, :-1], z[0, 1:], recalled).items():
        surprise += error * there[key] if key in there else error  # what is absent surprises by its absence alone
    tables = [key for key in (block.key for block in model.predicted) if model.modality(key).has_unknown]
    strange = [(after[key] == UNKNOWN) & there[key].unsqueeze(-1) if key in there else after[key] == UNKNOWN for key in tables]
    unknown = torch.cat(strange, -1).float().mean(-1) if strange else torch.zeros_like(surprise)
    news = model.discovered({key: x[0, :-1] for key, x in found.items()}, z[0, own][1:])
    value = agent.hierarchy.value(z[0], model.view(z, previous_history(h, first), context.maps)[0])
    values = value if value is not None else torch.full((count,), torch.nan)
    whole = {
        "reward": model.reward(h[0, :-1]),
        "cont": model.cont(h[0, :-1]),
        "value": values[:-1],
        "surprise": surprise,
        "unknown": unknown,
        "disagreement": model.disagreement(h[0, :-1]),
    }
    kept = {name: x[start - begin :].double().cpu().numpy() for name, x in whole.items()} | {"news": news.double().cpu().numpy()}
    after_all = {key: state.apply(lambda x: x[:, -1]) for key, state in before.items()}
    return kept | {"last": values[-1:].double().cpu().numpy()}, after_all
