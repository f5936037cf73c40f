"""Tensor parallelism's layout: which weights are split, how, and what a rank that has its share computes."""

from __future__ import annotations

import torch

from tests.world_model.conftest import SPEC, tiny_config
from world_model.model import WorldModel
from world_model.splitting import autotp_settings, keep_share, partial_gradients, share_of, split_dimensions

COLUMNS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
ROWS = ("self_attn.o_proj", "mlp.down_proj")


def test_the_matrices_into_heads_and_mlp_are_split_by_outputs_and_those_out_of_them_by_inputs():
    model = WorldModel(SPEC, tiny_config())
    layers = [f"dynamics.decoder.layers.{n}." for n in (0, 1)]
    expected = {f"{layer}{name}.weight": int(name in ROWS) for layer in layers for name in COLUMNS + ROWS}
    assert split_dimensions(model) == expected
    assert partial_gradients(model) == {f"{layer}self_attn.{name}.weight" for layer in layers for name in ("q_norm", "k_norm")}


def test_shares_put_together_are_the_whole():
    whole = torch.arange(24.0).view(4, 6)
    assert share_of(whole, 0, 1, 2).tolist() == whole[2:].tolist()
    assert share_of(whole, 1, 1, 3).tolist() == whole[:, 2:4].tolist()


@torch.no_grad()
def test_what_ranks_make_of_their_shares_adds_up_to_what_one_makes_of_all():
    mlp = WorldModel(SPEC, tiny_config()).dynamics.decoder.layers[0].mlp
    x = torch.randn(3, 32)
    names = {"gate_proj": 0, "up_proj": 0, "down_proj": 1}
    parts = []
    for rank in (0, 1):
        gate, up, down = (share_of(getattr(mlp, name).weight, dimension, rank, 2) for name, dimension in names.items())
        parts.append((torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T)
    torch.testing.assert_close(parts[0] + parts[1], mlp(x))


def test_a_model_that_keeps_its_share_has_half_of_the_split_weights():
    model = WorldModel(SPEC, tiny_config())
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    keep_share(model, 2)
    split = split_dimensions(model)
    for name, parameter in model.named_parameters():
        shape = list(before[name])
        if name in split:
            shape[split[name]] //= 2
        assert list(parameter.shape) == shape, name


def test_deepspeed_is_told_the_same_plan():
    specs = autotp_settings(4)["partition_config"]["layer_specs"]
    assert {(spec["patterns"][0], spec["partition_type"]) for spec in specs} == {
        (rf"model\.dynamics\.decoder\.layers\.\d+\.{name.replace('.', chr(92) + '.')}\.weight$", kind)
        for names, kind in ((COLUMNS, "column"), (ROWS, "row"))
        for name in names
    }
