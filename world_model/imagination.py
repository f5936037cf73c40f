"""Imagination: the world model as a TorchRL environment over latent states, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from envs.spaces.specs import ActionSpec
from world_model.decoding import RolloutDecoder
from world_model.dynamics import Dynamics, KeyValueCache
from world_model.mapping import Recalled
from world_model.model import NOTHING, WorldModel
from world_model.packing import packable, packed
from world_model.starts import Starts


class ImaginationCache(KeyValueCache):
    """Keys and values of the context, which all starts of a sequence share, followed by the imagined steps, step by step."""

    def __init__(self, starts: Starts, horizon: int, window: int) -> None:
        count = starts.step.shape[1]
        length = starts.first.shape[1]
        extra = horizon * count
        self.filled = length
        self.keys = [_extend(keys, extra) for keys in starts.context.keys]
        self.values = [_extend(values, extra) for values in starts.context.values]
        self.mask = _imagination_mask(starts, horizon, window)  # (H, B, 1, S, T + H * S)
        self.count = count

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        end = self.filled + self.count
        self.keys[layer][:, :, self.filled : end] = keys
        self.values[layer][:, :, self.filled : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self) -> None:
        self.filled += self.count

    def mask_at(self, step: int) -> Tensor:
        """(B, 1, S, keys so far and of this step)."""
        return self.mask[step, ..., : self.filled + self.count]


def cached_steps(dynamics: Dynamics, starts: Starts, cache: ImaginationCache) -> Callable[[int, Tensor], Tensor]:
    """The decoder's steps of a rollout, one after the other: number k and tokens (B, S, D) -> h (B, S, D)."""
    plan = RolloutDecoder(dynamics, starts.positions, cache.mask) if packable(dynamics) else None

    def step(k: int, tokens: Tensor) -> Tensor:
        if plan is None:
            h = dynamics(tokens, cache.mask_at(k), starts.positions + k, cache)
        else:
            h = plan.step(k, tokens, cache)
        cache.advance()
        return h

    return step


def _extend(x: Tensor, extra: int) -> Tensor:
    """(B, heads, T, d) -> (B, heads, T + extra, d), the rest to be written before it is read."""
    longer = x.new_empty(*x.shape[:2], x.shape[2] + extra, x.shape[3])
    longer[:, :, : x.shape[2]] = x
    return longer


def _imagination_mask(starts: Starts, horizon: int, window: int) -> Tensor:
    """Start s at imagined step k sees its episode before the start and its own imagined steps, at most `window` in all."""
    batch, count = starts.step.shape
    length, device = starts.first.shape[1], starts.step.device
    segment = starts.first.long().cumsum(1)  # (B, T)
    own = segment.gather(1, starts.step)  # (B, S)
    k = torch.arange(horizon, device=device)
    now = starts.step[None] + k[:, None, None]  # (H, B, S), position of the query
    at = torch.arange(length, device=device)
    context = (segment[:, None] == own[..., None]) & (at < starts.step[..., None])  # (B, S, T)
    context = context[None] & (at > now[..., None] - window)  # (H, B, S, T)
    near = (k[:, None] >= k[None]) & (k[:, None] - k[None] < window)  # (H query, H key)
    same = torch.eye(count, dtype=torch.bool, device=device)  # (S query, S key)
    imagined = near[:, None, :, None] & same[None, :, None, :]  # (H, S, H, S)
    imagined = imagined.reshape(horizon, 1, count, horizon * count).expand(-1, batch, -1, -1)
    return torch.cat([context, imagined], -1).unsqueeze(2)


def _action_spec(action: ActionSpec, n: int, device: torch.device) -> TensorSpec:
    if action.kind == "discrete":
        return Categorical(action.size, shape=(n,), dtype=torch.int64, device=device)
    shape = torch.Size([n, action.size])
    if action.kind == "multi_discrete":
        return MultiCategorical(action.classes, shape=shape, dtype=torch.int64, device=device)
    return Bounded(-1.0, 1.0, shape, dtype=torch.float32, device=device)


class Policy(Protocol):
    """Chooses actions in imagination: z (N, G), h (N, V) -> action (N, *action shape), log-probability (N,).

    It may be called in PyTorch's inference mode, as it is on a CPU: to learn from a tensor made there takes a copy made outside.
    """

    def __call__(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass
class Rollout:
    """N imagined trajectories: states of H + 1 steps, actions and predictions of H steps.

    Attributes:
        z: (N, H+1, G). h: (N, H+1, V), what a policy sees beside z (`WorldModel.view`).
        action: (N, H, *action shape). log_prob, reward, cont: (N, H).
        disagreement: (N, H), of the model's ensemble about each step; zeros without one.
        discovered: (N, H), share of what each step shows that is news (`world_model.mapping.discovered`); zeros without maps.
    """

    z: Tensor
    h: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    cont: Tensor
    disagreement: Tensor
    discovered: Tensor


@dataclass
class _Steps:
    """A rollout on its way: H + 1 states and views, H actions, their log-probabilities, and what the maps held."""

    states: list[Tensor]
    views: list[Tensor]
    actions: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)
    recalled: list[Recalled] = field(default_factory=list)


class ImaginationEnv(EnvBase):
    """Latent environment of N = B * S states. One live rollout at a time: `begin`, then `reset`, then at most `horizon` steps, in
    which no weight may change.

    Keys: `z` (N, G) int64 and `h` (N, V) observed; `action` (N, *action shape); `reward` (N, 1); `cont` (N, 1), the predicted
    probability of going on, and `terminated` (N, 1) drawn from it. `imagine` runs a whole rollout, both heads batched after it.
    """

    batch_locked = False

    def __init__(self, model: WorldModel, horizon: int, num_states: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_states]))
        self.model, self.horizon = model, horizon
        groups, width = model.latents.groups, model.seen_width
        n = num_states
        self.observation_spec = Composite(
            z=Unbounded((n, groups), dtype=torch.int64, device=self.device),
            h=Unbounded((n, width), device=self.device),
            cont=Bounded(0.0, 1.0, (n, 1), device=self.device),
            shape=(n,),
        )
        self.action_spec = _action_spec(model.spec.action, n, self.device)
        self.reward_spec = Unbounded((n, 1), device=self.device)
        self.generator: torch.Generator | None = None
        self.likeliest = False  # go on with the likeliest codes in place of drawn ones
        self.watch: Callable[[], AbstractContextManager[Any]] = nullcontext  # entered for the time of every rollout
        self._starts: Starts | None = None
        self._memory: ImaginationCache | None = None
        self._decode: Callable[[int, Tensor], Tensor] | None = None

    def begin(self, starts: Starts) -> None:
        """Set where the next rollout starts.

        Raises:
            ValueError: if the number of starts is not the environment's batch size.
        """
        if starts.step.numel() != self.batch_size[0]:
            raise ValueError(f"imagination of {self.batch_size[0]} states was given {starts.step.numel()} starts")
        self._starts = starts

    @torch.no_grad()
    def imagine(self, policy: Policy, starts: Starts, nets: Iterable[nn.Module] = ()) -> Rollout:
        """Roll `policy` out for `horizon` steps from `starts`. `nets`: those it asks, laid out for that, too."""
        with self.watch(), self.model.autocast(), packed([*self.parts(starts.z), *nets], self.batch_size[0]):
            # Small operations cost less in it. Not with weights that are partitioned: they would be gathered as its tensors.
            with torch.inference_mode() if packable(self.model) else nullcontext():
                try:
                    steps = self._imagine(policy, starts)
                finally:
                    self._end()
            return self._predicted(steps)

    def parts(self, z: Tensor) -> Iterator[nn.Module]:
        """Of the model, what a rollout asks at every step: not the decoder, which has a plan, nor what `lasting` answers for."""
        for part in self.model.children():
            if part is self.model.embed_latent:
                yield from part.unlasting(z)
            elif part is not self.model.dynamics:
                yield part

    def _imagine(self, policy: Policy, starts: Starts) -> _Steps:
        self.begin(starts)
        self._rewind()
        steps = _Steps([self._z], [self._view()])
        for _ in range(self.horizon):
            with self._full_precision():  # as the learner will weigh these actions
                action, log_prob = policy(self._z, steps.views[-1])
            self._advance(action)
            steps.states.append(self._z)
            steps.views.append(self._view())
            steps.actions.append(action)
            steps.log_probs.append(log_prob)
            steps.recalled.append(self._recalled)
        return steps

    def _predicted(self, steps: _Steps) -> Rollout:
        """The rollout, with what both heads say of all of its steps at once."""
        z, seen = torch.stack(steps.states, 1), torch.stack(steps.views, 1)  # (N, H+1, G), (N, H+1, V)
        held = {key: torch.stack([maps[key] for maps in steps.recalled], 1) for key in steps.recalled[0]}
        h = seen[..., : self.model.config.width]
        return Rollout(
            z=z,
            h=seen,
            action=torch.stack(steps.actions, 1),
            log_prob=torch.stack(steps.log_probs, 1),
            reward=self.model.reward(h[:, 1:]),
            cont=self.model.cont(h[:, 1:]),
            disagreement=self.model.disagreement(h[:, 1:]).float(),
            discovered=self.model.discovered(held, z[:, 1:]),
        )

    def _rewind(self) -> None:
        if self._starts is None:
            raise RuntimeError("call begin(starts) before a rollout")
        starts = self._starts
        self._step_index = 0
        memory = self._memory = ImaginationCache(starts, self.horizon, self.model.config.window)
        self._maps = {key: state.apply(lambda x: x.flatten(0, 1)) for key, state in starts.maps.items()}
        self._decode = cached_steps(self.model.dynamics, starts, memory)
        self._z, self._h = starts.z.flatten(0, 1), starts.h.flatten(0, 1)
        self._lasting, self._by_action, self._recalled = self.model.lasting(self._z), self.model.maps.by_action(), NOTHING
        self._shown = self.model.latents.shown(self._z, {key: x.flatten(0, 1) for key, x in starts.shown.items()})
        # Drawing all noise at once is a fifth of a rollout cheaper than drawing it step by step.
        shape = (self.horizon, len(self._z), self.model.latents.groups)
        self._noise = torch.rand(shape, device=self._z.device, generator=self.generator)

    def _end(self) -> None:
        """Let go of the rollout's keys and values, which are most of what it holds; a planner has many of these environments."""
        self._starts = self._memory = self._decode = None

    def _advance(self, action: Tensor) -> None:
        """One step: (z_t, a_t) -> h_t -> z_{t+1}."""
        if self._step_index >= self.horizon:
            raise RuntimeError(f"this rollout was begun with a horizon of {self.horizon} steps; it cannot take another")
        assert self._starts is not None and self._decode is not None
        shape = self._starts.step.shape
        tokens = self.model.embed(self._z, action, self._lasting).unflatten(0, shape)  # (B, S, D)
        h = self._decode(self._step_index, tokens).flatten(0, 1).float()
        codes = self.model.latents.split(self._z)
        self._maps, self._recalled = self.model.maps.step(self._maps, codes, h, action, in_place=True, by_action=self._by_action)
        z = self.model.latents.put_back(self._z, self._shown)
        self._z = self.model.sample_next(h, z, None if self.likeliest else self._noise[self._step_index], self._recalled)
        self._h = h
        self._step_index += 1

    def _full_precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._z.device.type, enabled=False)

    def _view(self) -> Tensor:
        return self.model.view(self._z, self._h, self._maps).float()

    @torch.no_grad()
    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: object) -> TensorDictBase:
        with self.model.autocast():
            self._rewind()
        cont = torch.ones(*self.batch_size, 1, device=self.device)
        return TensorDict({"z": self._z, "h": self._view(), "cont": cont}, self.batch_size, device=self.device)

    @torch.no_grad()
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        with self.model.autocast():
            self._advance(tensordict.get("action"))
            cont, reward, view = self.model.cont(self._h).unsqueeze(-1), self.model.reward(self._h).unsqueeze(-1), self._view()
        terminated = torch.rand(cont.shape, device=cont.device, generator=self.generator) >= cont
        return TensorDict(
            {
                "z": self._z,
                "h": view,
                "cont": cont,
                "reward": reward,
                "terminated": terminated,
                "done": terminated,
            },
            self.batch_size,
            device=self.device,
        )

    def _set_seed(self, seed: int | None) -> None:
        self.generator = torch.Generator(device=self.device).manual_seed(seed or 0)
