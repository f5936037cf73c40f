"""How codes are used: counts, perplexity and dead codes by hand."""

from __future__ import annotations

import math

import pytest
import torch

from world_model.latents import LatentBlock
from world_model.usage import code_counts, dead_share, perplexity

VECTOR = LatentBlock("state", "vector", (4, 4), learned=True, ordered=True)
IMAGE = LatentBlock("view", "image", (4, 4, 4), layout=(1, 3))


def test_codes_are_counted_group_by_group_unless_the_groups_share_a_table():
    codes = torch.tensor([[[0, 3], [0, 2]], [[1, 3], [0, 3]]])  # (B, T, groups)
    assert code_counts(VECTOR, codes).tolist() == [[3, 1, 0, 0], [0, 0, 1, 3]]
    assert code_counts(IMAGE, torch.tensor([[0, 0, 3], [0, 1, 3]])).tolist() == [[3, 1, 0, 2]]


def test_perplexity_is_the_number_of_codes_used_equally_often():
    counts = torch.tensor([[5.0, 5, 5, 5], [7, 0, 0, 0], [2, 2, 0, 0], [2, 1, 1, 0]])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert perplexity(counts).tolist() == pytest.approx([4, 1, 2, math.exp(entropy)])


def test_a_code_is_dead_when_it_makes_up_less_than_a_ten_thousandth():
    counts = torch.tensor([[20_000.0, 3, 1, 0, 0], [1, 1, 1, 1, 0]])
    assert dead_share(counts, 4).tolist() == [0.5, 0]  # the fifth cannot be used yet
