"""Counting arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.flops import count_flops, matmul_peak, shortest_seconds


def test_a_linear_layer_costs_two_operations_a_weight_and_row():
    layer = torch.nn.Linear(32, 64)
    assert count_flops(lambda: layer(torch.ones(8, 32))) == 2 * 8 * 32 * 64


def test_its_backward_pass_costs_twice_that_for_weights_and_inputs():
    layer, x = torch.nn.Linear(32, 64), torch.ones(8, 32, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * (2 * 8 * 32 * 64)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, 16, 16, dtype=torch.bool)])
def test_attention_on_the_cpu_counts_its_two_products(mask):
    q = torch.ones(2, 4, 16, 8)  # (B, heads, T, d)
    product = 2 * (2 * 4) * 16 * 16 * 8
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q, attn_mask=mask)) == 2 * product


def test_attentions_backward_pass_counts_five_products_one_of_them_recomputed():
    q = torch.ones(2, 4, 16, 8, requires_grad=True)
    product = 2 * (2 * 4) * 16 * 16 * 8
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward()) == (2 + 5) * product


def test_work_without_products_counts_nothing():
    assert count_flops(lambda: torch.ones(100).exp()) == 0


def test_the_shortest_repetition_counts_and_the_first_is_not_timed(monkeypatch):
    now = [0.0]
    durations = iter([9.0, 3.0, 1.0, 2.0])

    def work():
        now[0] += next(durations)

    monkeypatch.setattr("benchmarks.flops.time.perf_counter", lambda: now[0])
    assert shortest_seconds(work, seconds=6.0) == 1.0


def test_the_peak_is_the_best_size_at_two_operations_a_multiply_add(monkeypatch):
    taken = iter([2 * 8**3 / 100.0, 2 * 16**3 / 400.0])  # seconds that make 100 and 400 FLOP/s
    monkeypatch.setattr("benchmarks.flops.shortest_seconds", lambda *args: next(taken))
    assert matmul_peak(sizes=(8, 16)) == pytest.approx(400.0)


def test_the_peak_of_this_machine_is_more_than_nothing():
    assert matmul_peak(sizes=(64,), seconds=0.01) > 1e6
