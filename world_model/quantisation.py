"""Finite scalar quantisation: a few bounded numbers, each rounded to one of evenly spaced levels."""

from __future__ import annotations

from torch import Tensor

from world_model.latents import code_levels


def quantise(x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Numbers (..., groups) -> codes (..., groups) int64, and the levels from -1 to 1 that they stand for (Mentzer et al. 2023).

    Gradients pass the rounding as if it were not there (straight-through).
    """
    bounded = x.tanh()
    codes = ((bounded.detach() + 1) / 2 * (classes - 1)).round().long()
    return codes, bounded + (code_levels(codes, classes) - bounded).detach()
