"""The goal space: what goals speak of, and what the autoencoder owes."""

from __future__ import annotations

import pytest
import torch

from hierarchy.config import GoalConfig
from hierarchy.goal import MEMORY, NO_GOAL
from hierarchy.goal_rewards import best, similarity
from hierarchy.goals import GoalSpace
from tests.hierarchy.toy import nowhere
from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model.latents import LatentBlock, LatentSpec
from world_model.model import WorldModel

LATENTS = LatentSpec(
    (
        LatentBlock("mission", "text", (9, 9), static=True),
        LatentBlock("view", "grid", (6,) * 9, layout=(3, 3)),
        LatentBlock("pose", "categorical", (4, 2)),
        LatentBlock("camera", "image", (5,) * 4, layout=(2, 2), presence="camera?"),
        LatentBlock("camera?", "categorical", (2,)),
    )
)
V = 6


def goal_config(**keys: object) -> GoalConfig:
    return GoalConfig(**(dict(groups=4, classes=4, hidden=32, symbol_width=4, cell_width=4) | keys))  # type: ignore[arg-type]


def goal_space(**keys: object) -> GoalSpace:
    torch.manual_seed(0)
    return GoalSpace(LATENTS, V, goal_config(**keys))


def states(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """z (n, Z): eight rooms, each with a view, a pose and a mission of its own; the camera is there in every other one."""
    generator = torch.Generator().manual_seed(7)
    classes = torch.tensor([c for block in LATENTS.blocks for c in block.classes])
    rooms = (torch.rand(8, len(classes), generator=generator) * classes).long()
    rooms[:, -1] = torch.arange(8) % 2
    z = LATENTS.hide(rooms[torch.randint(8, (n,), generator=torch.Generator().manual_seed(seed))])
    return z, torch.randn(n, V, generator=generator)


def trained(steps: int = 300, **keys: object) -> GoalSpace:
    goals = goal_space(**keys)
    optimizer = torch.optim.Adam(goals.parameters(), lr=1e-2)
    for step in range(steps):
        z, h = states(64, step)
        goals.observe(z, h, nowhere(len(z)))
        loss, _ = goals.loss(z, h, nowhere(len(z)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return goals


def test_a_mission_is_no_part_of_a_goal_and_neither_is_any_other_static_block():
    goals = goal_space()
    assert goals.spec.slices.keys() == {"view", "pose", "camera", "camera?"} and goals.groups == 9 + 2 + 4 + 1
    z, h = states(5)
    other = z.clone()
    other[:, :2] = 8 - other[:, :2]
    assert torch.equal(goals.encode(z, h, nowhere(len(z))), goals.encode(other, h, nowhere(len(other)))) and torch.equal(
        goals.novelty(z, h, nowhere(len(z))), goals.novelty(other, h, nowhere(len(other)))
    )


def test_what_is_absent_counts_for_nothing_in_novelty():
    goals = goal_space()
    z, _ = states(8)
    assert goals.there(z)[:, goals.spec.slices["camera"]].any(1).tolist() == (z[:, -1] > 0).tolist()
    assert goals.there(z)[:, goals.spec.slices["view"]].all()


def test_a_decoded_goal_is_a_distribution_over_every_group_and_no_class_that_a_group_has_not():
    goals = goal_space()
    goal = goals.decode(goals.prior(7), nowhere(7))
    assert goal.probability.shape == (7, 16, 6)
    assert torch.allclose(goal.probability.sum(-1), torch.ones(7, 16), atol=1e-5)
    assert (goal.probability[:, 10, 2:] == 0).all(), "the second pose has two classes"


def test_a_goal_becomes_codes_of_the_model_that_keep_the_mission_and_hide_what_is_absent():
    goals = goal_space()
    z, _ = states(20)
    state = goals.state(goals.prior(20), z)
    assert state.shape == z.shape and torch.equal(state[:, :2], z[:, :2])
    assert torch.equal(state, LATENTS.hide(state))


def test_goals_are_readable_through_every_modality():
    model = WorldModel(SPEC, tiny_config()).eval()
    goals = GoalSpace(model.latents, model.view_width, goal_config())
    z, _ = model.posterior(random_sequences(model, 2, 3).obs)
    codes = model.latents.split(goals.state(goals.prior(6).view(2, 3, 4), z))
    for leaf in model.spec.observations:
        assert model.modality(leaf.key).detokenize(codes[leaf.key]).shape == (2, 3, *leaf.shape)


def test_the_autoencoder_learns_to_put_states_together_again_and_finds_new_ones_novel():
    goals = trained()
    z, h = states(32, 999)
    again = goals.state(goals.encode(z, h, nowhere(len(z))), z)
    assert (again == z).float().mean().item() > 0.9
    strange = z.clone()
    strange[:, 2:11] = (strange[:, 2:11] + 1) % 6
    assert goals.novelty(strange, h, nowhere(len(strange))).mean() > 3 * goals.novelty(z, h, nowhere(len(z))).mean()


def test_the_divergence_to_the_prior_is_held_at_its_target():
    goals = trained(600, kl_target=0.4)
    kl = torch.stack([goals.loss(*states(64, seed), nowhere(64))[1]["goal/kl"] for seed in range(2000, 2010)]).mean()
    most = 4 * torch.tensor(4.0).log()
    assert kl.item() == pytest.approx(0.4 * most.item(), rel=0.3)


def test_an_encoded_state_is_similar_to_its_own_goal_and_not_to_that_of_another():
    goals = trained()
    z, h = states(256, 5)
    goal = goals.decode(goals.encode(z, h, nowhere(256)), nowhere(256))
    view = goals.view(z.unsqueeze(1), h.unsqueeze(1), goal, torch.ones(256, 0))
    own, top = similarity(view), best(view)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    other = similarity(goals.view(z[order].unsqueeze(1), h.unsqueeze(1), goal, torch.ones(256, 0)))
    assert own.mean() > 0.8 * top.mean() and other.mean() < 0.3 * top.mean()


def test_no_goal_is_nothing_at_all():
    goals = goal_space()
    none = goals.decode(torch.full((3, 4), NO_GOAL), nowhere(3))
    assert not none.there.any() and not none.groups.any() and not goals.one_hot(none.code).any()


def test_the_history_joins_a_goal_as_signs_that_nothing_is_learned_through():
    goals = goal_space(history=12)
    z, h = states(8)
    h.requires_grad_()
    codes = goals.codes(z, h, nowhere(len(z)))
    assert goals.groups == 16 + 12 and codes[:, goals.spec.slices[MEMORY]].unique().tolist() == [0, 1]
    assert torch.equal(goals.codes(z, 3 * h, nowhere(len(z))), codes), "signs do not know how long a history is"
    goals.loss(z, h, nowhere(len(z)))[0].backward()
    assert h.grad is None
    assert goals.state(goals.prior(8), z).shape == z.shape


def test_usual_codes_are_counted_and_older_ones_forgotten():
    goals = goal_space(decay=0.5)
    z, h = states(1)
    for _ in range(20):
        goals.observe(z, h, nowhere(len(z)))
    assert goals.usual.sum(-1).tolist() == pytest.approx([1.0] * 16)
    pose = goals.usual[9]
    assert pose[z[0, 11]] > 0.95
    other = z.clone()
    other[0, 11] = (z[0, 11] + 1) % 4
    for _ in range(20):
        goals.observe(other, h, nowhere(len(other)))
    assert goals.usual[9][other[0, 11]] > 0.95


def test_scales_and_counts_are_part_of_the_state():
    goals = trained(20)
    again = goal_space()
    again.load_state_dict(goals.state_dict())
    assert torch.equal(again.usual, goals.usual) and again.kl_weight() == goals.kl_weight()
