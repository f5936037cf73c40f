"""Where imagination begins: steps of replayed sequences, of sequences shown in one prefill, or of episodes being acted in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from world_model.batch import ModelOutput, Sequences
from world_model.dynamics import RecordingCache, RollingState
from world_model.latents import Shown
from world_model.mapping import Maps


@dataclass
class Starts:
    """S starts in each of B sequences, together with the context they may look back on.

    Attributes:
        step: (B, S) int64, index of each start in its sequence.
        z: (B, S, G) codes there.
        h: (B, S, D) history up to the step before (zeros where an episode or the sequence starts).
        first: (B, T) bool, episode starts of the sequences.
        context: keys and values of the pass over the sequences, (B, heads, T, head_dim) a layer.
        offset: (B, 1) int64, the position that index 0 of a sequence had when its keys were made; None: 0.
    """

    step: Tensor
    z: Tensor
    h: Tensor
    first: Tensor
    context: RecordingCache
    offset: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """(B, S) int64, of the starts, as the decoder counts."""
        return self.step if self.offset is None else self.step + self.offset

    @property
    def maps(self) -> Maps:
        """Of grids, before each start, (B, S, ...)."""
        rows = torch.arange(len(self.step), device=self.step.device).unsqueeze(1)
        return {key: state.apply(lambda x: x[rows, self.step]) for key, state in self.context.maps.items()}

    @property
    def shown(self) -> Shown:
        """Up to each start, or before it, (B, S, groups)."""
        rows = torch.arange(len(self.step), device=self.step.device).unsqueeze(1)
        return {key: codes[rows, self.step] for key, codes in self.context.shown.items()}

    def branch(self, n: int) -> Starts:
        """Every start `n` times, one after the other, (B, S * n): futures of one state, which share its context as it is."""
        step, z, h = (x.repeat_interleave(n, 1) for x in (self.step, self.z, self.h))
        return replace(self, step=step, z=z, h=h)


def previous_history(h: Tensor, first: Tensor) -> Tensor:
    """Decoder outputs h (B, T, D) -> the history before each step: h_{t-1}, zeros where an episode or the sequence starts."""
    shifted = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    return shifted * (~first).unsqueeze(-1)


def starts_at(step: Tensor, z: Tensor, h: Tensor, first: Tensor, context: RecordingCache) -> Starts:
    """Starts at the steps (B, S) of sequences whose codes are z (B, T, G) and whose decoder outputs are h (B, T, D).

    Sequences may differ in length: what lies behind a start is never looked at, whatever fills it.
    """
    rows = torch.arange(len(step), device=step.device).unsqueeze(1)
    return Starts(step, z[rows, step], previous_history(h, first)[rows, step], first, context)


def choose_starts(output: ModelOutput, batch: Sequences, per_sequence: int, generator: torch.Generator | None = None) -> Starts:
    """`per_sequence` different steps of each sequence, drawn uniformly; terminal steps only where nothing else is left."""
    weight = (~batch.last).float() + 1e-6  # (B, T)
    step = torch.multinomial(weight, per_sequence, generator=generator).sort(1).values  # (B, S)
    return starts_at(step, output.z, output.h, batch.first, output.context)


def starts_now(state: RollingState, z: Tensor, h: Tensor) -> Starts:
    """One start in each of B episodes that are being acted in, at the observation that has just come.

    Args:
        state: the rolling cache, new episodes already restarted; nothing is computed again.
        z: (B, G) codes of the observation. h: (B, D) history before it.
    """
    batch, window = len(state.position), state.keys.shape[3]
    offset = (state.position - window).unsqueeze(1)  # (B, 1), of the oldest step that may still be there
    index = torch.arange(window, device=z.device)
    slot = (offset + index) % window  # (B, W), oldest first
    first = torch.zeros(batch, window + 1, dtype=torch.bool, device=z.device)
    begun = state.position < window
    first[begun, (window - state.position)[begun]] = True  # what lies before it was never written in this episode
    context = RecordingCache()
    for kept, found in ((state.keys, context.keys), (state.values, context.values)):
        for layer in kept:  # (B, heads, W, head_dim); one place more, for the start itself
            order = slot[:, None, :, None].expand_as(layer)
            found.append(torch.nn.functional.pad(layer.gather(2, order), (0, 0, 0, 1)))
    context.maps = {  # as they are now, of whatever step
        key: maps.apply(lambda x: x.unsqueeze(1).expand(-1, window + 1, -1)) for key, maps in state.maps.items()
    }
    context.shown = {key: codes.unsqueeze(1).expand(-1, window + 1, -1) for key, codes in state.shown.items()}
    step = torch.full((batch, 1), window, device=z.device)
    return Starts(step, z.unsqueeze(1), h.unsqueeze(1), first, context, offset)
