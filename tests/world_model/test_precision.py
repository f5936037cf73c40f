"""bf16 and torch.compile by config: the same results, up to precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from envs.errors import UserError
from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model.batch import ModelOutput, Sequences
from world_model.compiling import check_compiler
from world_model.dynamics import RollingState, rolling_step
from world_model.engines.local import LocalEngine
from world_model.imagination import ImaginationEnv, Rollout
from world_model.model import WorldModel
from world_model.starts import choose_starts

SYMBOLS = replace(SPEC, observations=SPEC.observations[:3])  # compiling takes time: grid, category and text are enough


def batch_for(model: WorldModel) -> Sequences:
    full = random_sequences(WorldModel(SPEC, tiny_config()), 4, 12, ends={0: 4})
    symbols = replace(full, obs={leaf.key: full.obs[leaf.key] for leaf in model.spec.observations})
    symbols.first[1, 0] = False
    return replace(symbols, before=symbols.apply(lambda x: x[:, :7]))


def train_and_imagine(**changes: object) -> tuple[ModelOutput, Rollout, WorldModel]:
    """Three updates on one batch, and a rollout under the same noise and actions."""
    torch.manual_seed(0)
    model = WorldModel(SYMBOLS, tiny_config(**changes))
    engine, batch = LocalEngine(model, torch.device("cpu")), batch_for(model)
    for _ in range(3):
        output, _ = engine.train_step(batch)
    env = ImaginationEnv(model, 4, 8)
    env.set_seed(0)

    def policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        assert h.dtype == torch.float32 and torch.nn.functional.linear(h, h).dtype == torch.float32, "policies are left in fp32"
        return torch.zeros(len(z), dtype=torch.int64), torch.zeros(len(z))

    starts = choose_starts(output, batch, 2, torch.Generator().manual_seed(0))
    return output, env.imagine(policy, starts), model


def test_bf16_learns_and_imagines_what_fp32_does_up_to_its_precision():
    (full, dreamed, _), (half, imagined, model) = train_and_imagine(), train_and_imagine(precision="bf16")
    for name, loss in full.losses.items():
        assert half.losses[name] == pytest.approx(float(loss), rel=0.02, abs=0.01), name
    off = (full.h - half.h).abs()
    assert 1e-5 < off.mean() < 0.05 and off.flatten().quantile(0.99) < 0.2, "and it was bf16 that computed"
    same = (dreamed.z == imagined.z).all(-1).cumprod(1).bool()  # until a code is drawn otherwise
    assert same[:, 1].float().mean() > 0.5 and (dreamed.h - imagined.h)[same].abs().mean() < 0.1
    assert half.loss.dtype == half.h.dtype == imagined.h.dtype == imagined.reward.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@torch.no_grad()
def test_a_cached_step_in_bf16_equals_the_full_pass_up_to_its_precision():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(precision="bf16")).eval()
    batch = random_sequences(model, 2, 10)
    z, expected, _ = model.prefill(batch.obs, batch.action, batch.first)
    state = RollingState.zeros(model.dynamics, 2, torch.device("cpu"))
    for t in range(10):
        with model.autocast():
            h, state = rolling_step(model.dynamics, model.embed(z[:, t], batch.action[:, t]), state)
        assert (h - expected[:, t]).abs().max() < 0.1


def test_compiled_parts_give_the_same_and_keep_their_names():
    plain, compiled = train_and_imagine(layers=1), train_and_imagine(layers=1, compile="eager")
    for name, loss in plain[0].losses.items():
        assert compiled[0].losses[name] == pytest.approx(float(loss), rel=1e-4), name
    assert (plain[1].h - compiled[1].h).abs().max() < 1e-4
    assert list(plain[2].state_dict()) == list(compiled[2].state_dict())


@pytest.mark.compiler
def test_what_inductor_makes_of_a_part_gives_and_learns_the_same():
    torch.manual_seed(0)
    plain, compiled = (WorldModel(SPEC, tiny_config(layers=1, compile=backend)) for backend in (None, "inductor"))
    compiled.load_state_dict(plain.state_dict())
    x, found = torch.randn(6, tiny_config().width), []
    for model in (plain, compiled):
        part = model.dynamics.decoder.layers[0].mlp
        y = part(x)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(part.parameters()))])
    for expected, got in zip(*found, strict=True):
        assert expected.abs().max() > 0 and (expected - got).abs().max() < 1e-5


def test_inductor_without_a_compiler_is_refused_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/cc" if name == "mine" else None)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("CXX", "TORCH_INDUCTOR_INSTALL_GXX"):
        monkeypatch.delenv(name, raising=False)
    cpu, other = torch.device("cpu"), torch.device("meta")
    with pytest.raises(UserError, match=r"model\.compile=inductor needs a C\+\+ compiler .* no g\+\+.*CXX.*compile=null"):
        check_compiler("inductor", cpu)
    check_compiler("inductor", other)
    check_compiler("eager", cpu)
    check_compiler(None, cpu)
    monkeypatch.setenv("TORCH_INDUCTOR_INSTALL_GXX", "1")
    check_compiler("inductor", cpu)
    monkeypatch.setenv("TORCH_INDUCTOR_INSTALL_GXX", "0")
    monkeypatch.setenv("CXX", "mine")
    check_compiler("inductor", cpu)


def test_a_backend_that_torch_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"model\.compile=gcc is no backend of torch\.compile; .*inductor.*, or null"):
        WorldModel(SPEC, tiny_config(compile="gcc"))
