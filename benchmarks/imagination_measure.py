"""One measurement of imagination's speed, all ways in turn."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.modules import RSSMPriorV3

from agent.agent import Agent
from agent.build import build_agent
from agent.config import RunConfig
from benchmarks.phases_measure import run_config
from benchmarks.store import write_json
from envs import make_envs, make_task_space
from hierarchy.flat import FlatPolicy
from world_model.dynamics import RecordingCache, segment_mask
from world_model.imagination import ImaginationCache, ImaginationEnv, cached_steps
from world_model.packing import packed
from world_model.starts import Starts, starts_at

CATEGORICALS, CLASSES, BLOCKS = 32, 16, 8  # of the RSSM: DreamerV3's smaller sizes
BELIEF = 8  # its GRU's width in widths of its layers, as there


@dataclass
class Scene:
    """What all ways start from: B sequences of `length` real steps, S starts at the end of each.

    Attributes:
        obs, action, first: of the sequences, as `WorldModel.prefill` takes them.
        horizon: steps to imagine.
    """

    agent: Agent
    obs: dict[str, Tensor]
    action: Tensor
    first: Tensor
    per_sequence: int
    horizon: int

    def starts(self) -> Starts:
        z, h, context = self.agent.model.prefill(self.obs, self.action, self.first)
        batch, length = self.first.shape
        step = torch.full((batch, self.per_sequence), length - 1, device=self.first.device)
        return starts_at(step, z, h, self.first, context)


def record_scene(config: RunConfig, context: int) -> Scene:
    """Random steps of real environments, `context` before every start; episodes that end meanwhile begin anew."""
    tasks = make_task_space(config.env)
    envs = make_envs(config.env, tasks, config.train.batch)
    device = torch.device("cpu")
    agent, _ = build_agent(config, envs.spec, device)
    n, rng = envs.num_envs, np.random.default_rng(config.seed)
    shown, actions = [envs.reset([tasks.hardest.with_seed(i) for i in range(n)])], []
    for step in range(context):
        actions.append(rng.integers(0, envs.spec.action.size, n))
        result = envs.step(actions[-1])
        ended = result.terminated | result.truncated
        obs = result.obs
        if ended.any():
            obs = envs.reset([tasks.hardest.with_seed(n * (step + 1) + i) if e else None for i, e in enumerate(ended)], ended)
        shown.append(obs)
    envs.close()
    stacked = {key: np.stack([obs[key] for obs in shown], 1) for key in shown[0]}  # (B, T, ...)
    tokens = agent.model.tokenize(stacked, grow=True)
    action = torch.from_numpy(np.stack([*actions, np.zeros(n, np.int64)], 1))
    first = torch.zeros(n, context + 1, dtype=torch.bool)  # taken as one episode: every start has the whole context
    first[:, 0] = True
    return Scene(agent, tokens, action, first, config.hierarchy.starts, config.hierarchy.horizon)


def decoder_cached(scene: Scene, starts: Starts, tokens: Tensor) -> Tensor:
    """tokens (H, B, S, D) -> h (N, H, D), one token a step."""
    model = scene.agent.model
    step = cached_steps(model.dynamics, starts, ImaginationCache(starts, scene.horizon, model.config.window))
    return torch.stack([step(k, tokens[k]).flatten(0, 1) for k in range(scene.horizon)], 1)


def decoder_whole(scene: Scene, context: Tensor, tokens: Tensor) -> Tensor:
    """The same without a cache: at every step a pass over context (N, T, D) and all imagined tokens so far."""
    found = []
    for k in range(scene.horizon):
        x = torch.cat([context, tokens[: k + 1].flatten(1, 2).transpose(0, 1)], 1)
        found.append(whole_pass(scene, x))
    return torch.stack(found, 1)


def whole_pass(scene: Scene, x: Tensor) -> Tensor:
    """x (N, T, D), one episode each -> the last h (N, D)."""
    model = scene.agent.model
    first = torch.zeros(len(x), x.shape[1], dtype=torch.bool)
    first[:, 0] = True
    steps = torch.arange(x.shape[1]).unsqueeze(0)
    return model.dynamics(x, segment_mask(first, model.config.window), steps, RecordingCache())[:, -1]


def rollout_whole(scene: Scene, starts: Starts, context: Tensor, noise: Tensor) -> None:
    """`ImaginationEnv.imagine` without a cache, heads and policy included."""
    model, policy = scene.agent.model, scene.agent.hierarchy
    assert isinstance(policy, FlatPolicy)
    z, h, x, histories = starts.z.flatten(0, 1), starts.h.flatten(0, 1), context, []
    maps = {key: state.apply(lambda x: x.flatten(0, 1)) for key, state in starts.maps.items()}
    for k in range(scene.horizon):
        action, _ = policy.policy.act(z, model.view(z, h, {}))
        x = torch.cat([x, model.embed(z, action).unsqueeze(1)], 1)
        h = whole_pass(scene, x)
        maps, recalled = model.maps.step(maps, model.latents.split(z), h, action)
        z = model.sample_next(h, z, noise[k], recalled)
        histories.append(h)
    stacked = torch.stack(histories, 1)
    model.reward(stacked)
    model.cont(stacked)


def transition_parameters(scene: Scene) -> int:
    model = scene.agent.model
    parts = (model.embed_latent, model.embed_action, model.embed_step, model.dynamics, model.priors, model.maps)
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def make_rssm(actions: int, parameters: int) -> RSSMPriorV3:
    """TorchRL's DreamerV3 prior, of the width that brings it next to so many parameters."""

    def build(width: int) -> RSSMPriorV3:
        return RSSMPriorV3(
            action_shape=torch.Size([actions]),
            hidden_dim=width,
            rnn_hidden_dim=BELIEF * width,
            num_categoricals=CATEGORICALS,
            num_classes=CLASSES,
            action_dim=actions,
            recurrent_model="block_gru",
            num_blocks=BLOCKS,
            unimix=0.01,
        )

    def off(prior: RSSMPriorV3) -> int:
        return abs(sum(parameter.numel() for parameter in prior.parameters()) - parameters)

    best = build(8)
    while off(wider := build(best.rnn_hidden_dim // BELIEF + 8)) < off(best):
        best = wider
    return best


def rssm_rollout(prior: RSSMPriorV3, count: int, horizon: int, actions: Tensor) -> None:
    """actions (H, N, A) one-hot."""
    state, belief = torch.zeros(count, CATEGORICALS * CLASSES), torch.zeros(count, prior.rnn_hidden_dim)
    for k in range(horizon):
        _, state, belief = prior(state, belief, actions[k])


@torch.no_grad()
def measure(config: RunConfig, threads: int, context: int, rounds: int) -> dict[str, Any]:
    """Time all ways in turn, `rounds` times. One thread is timed by its own processor time, which other programs do not add to.

    Raises:
        RuntimeError: cached and whole passes do not agree.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    clock = time.process_time if threads == 1 else time.perf_counter
    scene = record_scene(config, context)
    model, policy = scene.agent.model.eval(), scene.agent.hierarchy
    assert isinstance(policy, FlatPolicy)
    starts = scene.starts()
    count = starts.step.numel()
    env = ImaginationEnv(model, scene.horizon, count)
    tokens = torch.randn(scene.horizon, *starts.step.shape, config.model.width)
    z, _ = model.posterior(scene.obs)
    seen = model.embed(z, scene.action)[:, :-1].repeat_interleave(scene.per_sequence, 0)  # (N, T - 1, D)
    noise = torch.rand(scene.horizon, count, model.latents.groups)
    chosen = torch.randint(model.spec.action.size, (scene.horizon, count))
    one_hot = torch.nn.functional.one_hot(chosen, model.spec.action.size).float()
    rssm = make_rssm(model.spec.action.size, transition_parameters(scene))

    def transition() -> None:
        with packed(env.parts(starts.z), count):  # as `imagine` does
            env.begin(starts)
            env._rewind()
            for k in range(scene.horizon):
                env._advance(chosen[k])

    def whole(way: Callable[[], Any]) -> None:
        # It is the cache that is measured, not how weights are laid out.
        with packed([*model.children(), policy.policy.actor], len(seen) * seen.shape[1]):
            way()

    gap = float((decoder_cached(scene, starts, tokens) - decoder_whole(scene, seen, tokens)).abs().max())
    if gap > 1e-4:
        raise RuntimeError(f"cached and whole passes differ by {gap}")
    ways: dict[str, Callable[[], Any]] = {
        "prefill": scene.starts,
        "decoder": lambda: decoder_cached(scene, starts, tokens),
        "decoder, no cache": lambda: whole(lambda: decoder_whole(scene, seen, tokens)),
        "rollout": lambda: env.imagine(policy.policy.act, starts, [policy.policy.actor]),
        "rollout, no cache": lambda: whole(lambda: rollout_whole(scene, starts, seen, noise)),
        "transition": transition,
        "RSSM's transition": lambda: rssm_rollout(rssm, count, scene.horizon, one_hot),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            way = torch.inference_mode()(way)  # all of them, as `imagine` does
            if "no cache" not in name:  # which are long: what another way has left of caches and memory is nothing to them
                way()
            start = clock()
            way()
            if number:  # the first warms up
                taken[name].append(clock() - start)

    def ratio(slow: str, fast: str) -> float:
        return median(a / b for a, b in zip(taken[slow], taken[fast], strict=True))

    steps = count * scene.horizon
    return {
        "decoder_speedup": ratio("decoder, no cache", "decoder"),
        "rollout_speedup": ratio("rollout, no cache", "rollout"),
        "ratio_to_rssm": ratio("RSSM's transition", "transition"),
        "steps_per_second": {name: steps / median(times) for name, times in taken.items() if name != "prefill"},
        "prefill_seconds": median(taken["prefill"]),
        "parameters": {"ours": transition_parameters(scene), "rssm": sum(p.numel() for p in rssm.parameters())},
        "largest_difference": gap,
        "states": count,
        "rounds": rounds,
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "summary.json",
        measure(run_config(given["config"], given["seed"]), given["threads"], given["context"], given["rounds"]),
    )


if __name__ == "__main__":
    main()
