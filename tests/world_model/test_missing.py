"""Modalities that may be absent: masked on the way in, foretold on the way out, hidden now and then in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key
from tests.world_model.conftest import SPEC, random_observations, random_sequences, tiny_config
from world_model.batch import Sequences
from world_model.dynamics import RollingState
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.starts import choose_starts, starts_at, starts_now

OPTIONAL = ("image", "mission", "speed")


def optional_spec(static: bool = False) -> EnvSpec:
    """With `static` the mission is the same all through an episode, where it is there."""
    found = []
    for leaf in SPEC.observations:
        if leaf.key in OPTIONAL:
            found.append(replace(leaf, optional=True, static=static and leaf.static))
            found.append(ModalitySpec(presence_key(leaf.key), "categorical", (1,), "int64", classes=(2,)))
        else:
            found.append(leaf)
    return EnvSpec(tuple(found), SPEC.action)


def there(batch: int, length: int, absent: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Presences (B, T, 1); `absent` names the steps at which a modality is missing from every sequence."""
    found = {}
    for key in OPTIONAL:
        found[presence_key(key)] = np.ones((batch, length, 1), np.int64)
        found[presence_key(key)][:, absent.get(key, [])] = 0
    return found


def make(static: bool = False) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(optional_spec(static), tiny_config(text_heads=1, attention_heads=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "absent" in name or "attention.up" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def model() -> WorldModel:
    return make()


def sequences(model: WorldModel, absent: dict[str, list[int]], seed: int = 0) -> Sequences:
    plain = random_sequences(WorldModel(SPEC, tiny_config()), 2, 6, seed=seed)
    extra = model.tokenize(plain_observations(absent, seed), grow=True)
    return replace(plain, obs=extra)


def plain_observations(absent: dict[str, list[int]], seed: int = 0) -> dict[str, np.ndarray]:
    return random_observations((2, 6), seed) | there(2, 6, absent)


def test_what_stands_in_the_place_of_an_absent_modality_has_no_effect(model: WorldModel):
    """Two batches that differ only where modalities are absent give the same codes, history, losses."""
    absent = {"image": [2, 3], "mission": [3], "speed": [0, 3]}
    batch = sequences(model, absent)
    other = {key: value.clone() for key, value in batch.obs.items()}
    for key, steps in absent.items():
        other[key][:, steps] = 1 - other[key][:, steps].clamp(0, 1)
    with torch.no_grad():
        one, two = model(batch), model(replace(batch, obs=other))
    assert torch.equal(one.z, two.z) and torch.equal(one.h, two.h)
    assert all(torch.equal(one.losses[name], two.losses[name]) for name in one.losses)
    shown = {key: value.clone() for key, value in batch.obs.items()}
    shown["image?"][:, 2] = 1
    assert not torch.equal(model(replace(batch, obs=shown)).h[:, 2], one.h[:, 2]), "where it is there it counts"


def test_absence_itself_is_seen_and_foretold(model: WorldModel):
    with torch.no_grad():
        here, gone = (model(sequences(model, {"speed": steps})) for steps in ([], [1]))
    assert torch.equal(here.h[:, 0], gone.h[:, 0]) and not torch.equal(here.h[:, 1], gone.h[:, 1])
    assert "prior/speed?" in gone.losses and here.losses["prior/speed?"] != gone.losses["prior/speed?"]


def test_an_absent_modality_is_no_target(model: WorldModel):
    """All absent: its prior, its reconstruction cost nothing, and no symbol of what stands in its place is taken up."""
    everywhere = list(range(6))
    fresh = WorldModel(optional_spec(), tiny_config()).eval()
    output = fresh(sequences(fresh, dict.fromkeys(OPTIONAL, everywhere)))
    assert output.losses["prior/image"] == output.losses["prior/mission"] == output.losses["reconstruction/speed"] == 0
    assert int(fresh.modality("image").table.count) == 1 and float(fresh.modality("speed").count) == 0  # type: ignore[union-attr,arg-type]
    assert output.losses["prior/camera"] > 0
    assert all(torch.isfinite(value) for value in output.metrics.values())


def test_the_share_of_unknown_symbols_is_that_of_what_is_there(model: WorldModel):
    batch = sequences(model, {"image": [1, 2], "mission": [0]})
    batch.obs = model.tokenize(plain_observations({"image": [1, 2], "mission": [0]}))
    batch.obs["image"][:, 0] = 0
    metrics = model(batch).metrics
    assert metrics["unknown/image"] == pytest.approx(1 / 4), "the first of four steps that show one"
    assert metrics["unknown/mission"] == 0


def test_training_hides_spans_and_still_asks_for_what_was_hidden(model: WorldModel):
    batch = sequences(model, {})
    z, _ = model.posterior(batch.obs)
    model.config.modality_dropout = 1.0
    assert torch.equal(model._hidden(z), z), "not where it is put to use"
    model.train()
    torch.manual_seed(1)
    seen = torch.stack([model._hidden(z) for _ in range(200)])
    hidden = model.latents.split(seen)["image?"][..., 0] == 0  # (200, B, T)
    assert 0.2 < hidden.float().mean() < 0.5, "a span between two uniform draws is a third of the sequence"
    assert ((hidden[..., 1:] & ~hidden[..., :-1]).sum(-1) <= 1).all(), "one span a sequence"
    kept = model.latents.split(seen)["image"]
    assert (kept[hidden] == 0).all() and torch.equal(kept[~hidden], model.latents.split(z.expand_as(seen))["image"][~hidden])
    assert torch.equal(model.latents.split(seen)["pose.0"], model.latents.split(z.expand_as(seen))["pose.0"])
    assert torch.equal(model(batch).z, z), "imagination starts from what was really seen"


def test_that_what_was_hidden_comes_back_is_no_lesson(model: WorldModel, monkeypatch: pytest.MonkeyPatch):
    """What foretells presence is asked at the other steps alone, at those of true absence, too."""
    batch = sequences(model, {"speed": [1]})
    hidden = torch.zeros(2, 6, dtype=torch.bool)
    hidden[0, 2:4] = hidden[1, 3] = hidden[1, 1] = True
    monkeypatch.setattr(model, "_hidden", lambda z: model.latents.hide(z, {"speed": hidden}))
    with torch.no_grad():
        output = model(batch)
        seen = model._hidden(output.z)
        before = {key: x[:, :-1] for key, x in output.context.recalled.items()}
        nats = model.surprise(output.h[:, :-1], seen[:, :-1], output.z[:, 1:], before)
    lesson = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 0, 1]])
    torch.testing.assert_close(output.losses["prior/speed?"], (nats["speed?"] * lesson).mean())
    torch.testing.assert_close(output.losses["prior/image?"], nats["image?"].mean())


def stay(z: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(len(z), dtype=torch.int64), torch.zeros(len(z))


def test_imagination_lets_modalities_come_and_go(model: WorldModel):
    batch = sequences(model, {"speed": [1, 2, 3]})
    with torch.no_grad():
        output = model(batch)
    env = ImaginationEnv(model, 6, 8)
    torch.manual_seed(0)
    rollout = env.imagine(stay, choose_starts(output, batch, 4))
    parts = model.latents.split(rollout.z)
    gone = parts["speed?"][..., 0] == 0
    assert gone.any() and not gone.all()
    assert (parts["speed"][gone] == 0).all() and (parts["speed"][~gone] != 0).any()


def test_what_is_static_says_again_what_it_said_when_it_comes_back_in_imagination():
    """From starts where it is there, is absent after it was shown, and was never shown in the episode, not in the one before."""
    model = make(static=True)
    batch = sequences(model, {"mission": [2, 3, 4]})
    batch.first[1, 3] = batch.truncated[1, 2] = True
    with torch.no_grad():
        output = model(batch)
    starts = starts_at(torch.tensor([[1, 2], [1, 3]]), output.z, output.h, batch.first, output.context)
    torch.manual_seed(0)
    parts = model.latents.split(ImaginationEnv(model, 12, 12).imagine(stay, starts.branch(3)).z)
    there, words = parts["mission?"][..., 0] > 0, parts["mission"]
    assert (~there[:, :-1] & there[:, 1:]).any(1).all(), "it comes back in every one"
    said = torch.zeros(12, 1, 3, dtype=torch.int64)
    said[:9] = model.latents.split(output.z)["mission"][0, 0]
    assert (said[:9] > 0).all() and torch.equal(words, said * there.unsqueeze(-1))


def test_acting_remembers_what_was_shown_as_the_full_pass_does():
    model = make(static=True)
    batch = sequences(model, {"mission": [0, 2, 3]})
    batch.first[1, 3] = batch.truncated[1, 2] = True
    z, h, context = model.prefill(batch.obs, batch.action, batch.first)
    state = model.rolling_state(2, torch.device("cpu"))
    for t in range(6):
        state = RollingState.of(state.restart(batch.first[:, t]).tensors(), torch.device("cpu")).rows(torch.arange(2))
        now, then = starts_now(state, z[:, t], h[:, t]), starts_at(torch.full((2, 1), t), z, h, batch.first, context)
        for key, codes in model.latents.shown(z[:, t, None], now.shown).items():
            assert torch.equal(codes, then.shown[key])
        _, state = model.take_in(z[:, t], batch.action[:, t], state)
    shown = context.shown["mission"].any(-1).tolist()
    assert shown == [[False, True, True, True, True, True], [False, True, True, False, True, True]]
