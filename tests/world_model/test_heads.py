"""Heads and priors: what they say before they have learned anything, and what they can never say."""

from __future__ import annotations

import pytest
import torch

from tests.world_model.conftest import tiny_config
from world_model.config import ModelConfig
from world_model.embedding import BlockEmbedding, LatentEmbedding, TextGuide
from world_model.heads import FlatPrior, GridPrior, MapPrior, OrderedPrior, TwoHotHead, make_prior
from world_model.latents import LatentBlock, LatentSpec
from world_model.math import sample_codes

GRID = LatentBlock("image", "grid", (16,) * 9, layout=(3, 3))
RAGGED = LatentBlock("pose", "categorical", (4, 2, 3))
LEVELS = LatentBlock("speed", "vector", (4,) * 3, learned=True, ordered=True)


@pytest.mark.parametrize("config", [ModelConfig(), tiny_config()], ids=["default", "tiny"])
def test_a_new_reward_head_says_exactly_zero(config: ModelConfig):
    torch.manual_seed(0)
    head = TwoHotHead(config.width, config)
    assert head(torch.randn(3, 5, config.width)).eq(0).all()


def test_a_reward_head_learns_the_mean_of_what_it_is_given():
    torch.manual_seed(0)
    head = TwoHotHead(4, tiny_config())
    x = torch.eye(4)[[0, 0, 1, 2]]
    target = torch.tensor([0.0, 1.0, -3.0, 40.0])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(x, target).mean().backward()
        optimizer.step()
    assert head(x[1:]).tolist() == pytest.approx([0.5, -3, 40], rel=0.05)


def test_a_class_that_a_group_does_not_have_is_never_predicted():
    torch.manual_seed(0)
    prior = FlatPrior(RAGGED, 32, tiny_config())
    logits = prior(100 * torch.randn(500, 32), torch.zeros(500, 3, dtype=torch.int64), 4)
    assert logits.shape == (500, 3, 4)
    for noise in (0.0, 0.5, 1 - 2**-24):
        drawn = sample_codes(logits, torch.full((500, 3), noise))
        assert (drawn < torch.tensor(RAGGED.classes)).all()
    assert logits.softmax(-1)[:, 1, 2:].eq(0).all()


def test_a_flat_prior_sees_the_present_codes_of_its_block():
    """A heading that turns by one with every step is foretold from what it is now, though the history does not tell it."""
    torch.manual_seed(0)
    prior = make_prior(LatentBlock("heading", "categorical", (4,)), 32, tiny_config())
    assert isinstance(prior, FlatPrior)
    now = torch.arange(4).unsqueeze(-1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(prior(torch.randn(1, 32).expand(4, 32), now, 4)[:, 0], (now[:, 0] + 1) % 4).backward()
        optimizer.step()
    assert prior(torch.randn(1, 32).expand(4, 32), now, 4)[:, 0].argmax(-1).tolist() == [1, 2, 3, 0]


def test_a_grids_prior_answers_for_the_codes_in_use_and_these_do_not_depend_on_how_many_there_are():
    torch.manual_seed(0)
    by_map, by_attention = make_prior(GRID, 32, tiny_config()), make_prior(GRID, 32, tiny_config(maps=False))
    assert isinstance(by_map, MapPrior) and isinstance(by_attention, GridPrior)
    h, codes, recalled = torch.randn(2, 5, 32), torch.randint(8, (2, 5, 9)), torch.randint(17, (2, 5, 9, 2))
    for prior, read in ((by_map, recalled), (by_attention, codes)):
        few, all_of_them = prior(h, read, 8), prior(h, read, 16)
        assert few.shape == (2, 5, 9, 8) and all_of_them.shape == (2, 5, 9, 16)
        torch.testing.assert_close(few, all_of_them[..., :8])


def test_a_cell_of_a_maps_prior_reads_what_its_own_place_showed_and_no_other():
    torch.manual_seed(0)
    prior = make_prior(GRID, 32, tiny_config())
    h, recalled = torch.randn(1, 32), torch.zeros(1, 9, 2, dtype=torch.int64)
    before = prior(h, recalled, 16)
    for cell in range(9):
        for which in (0, 1):
            changed = recalled.clone()
            changed[0, cell, which] = 5
            moved = (prior(h, changed, 16) - before).abs().amax(-1)[0] > 0
            assert moved.nonzero().flatten().tolist() == [cell]


def test_every_cell_of_a_grids_prior_without_a_map_looks_at_every_present_cell():
    torch.manual_seed(0)
    prior = make_prior(GRID, 32, tiny_config(maps=False))
    h, codes = torch.randn(1, 32), torch.zeros(1, 9, dtype=torch.int64)
    before = prior(h, codes, 16)
    for cell in range(9):
        changed = codes.clone()
        changed[0, cell] = 5
        assert ((prior(h, changed, 16) - before).abs().amax(-1) > 0).all()


def test_groups_of_a_ragged_block_have_embeddings_of_their_own_and_those_of_a_grid_share_them():
    ragged, grid = BlockEmbedding(RAGGED, 5), BlockEmbedding(GRID, 5)
    assert ragged.table.num_embeddings == 4 + 2 + 3 and grid.table.num_embeddings == 16
    same = ragged(torch.tensor([1, 1, 1]))
    assert len({tuple(row.tolist()) for row in same}) == 3
    assert torch.equal(ragged(torch.tensor([3, 1, 2])), ragged.table.weight[[3, 4 + 1, 6 + 2]])
    assert len({tuple(row.tolist()) for row in grid(torch.full((9,), 7))}) == 1


def test_neighbouring_levels_of_an_ordered_block_begin_as_neighbours_on_a_line():
    table = BlockEmbedding(LEVELS, 5)
    embedded = torch.stack([table(torch.full((3,), level)) for level in range(4)])  # (levels, groups, width)
    steps = embedded.diff(dim=0)
    assert steps.abs().amin() > 0
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_an_ordered_prior_begins_by_expecting_that_nothing_changes_and_a_little_change_before_a_large_one():
    prior = make_prior(LEVELS, 32, tiny_config())
    assert isinstance(prior, OrderedPrior)
    for level in range(4):
        logits = prior(torch.randn(7, 32), torch.full((7, 3), level), 4)
        distance = (torch.arange(4) - level).abs()
        order = logits[0, 0].argsort(descending=True)
        assert distance[order].tolist() == sorted(distance.tolist()) and order[0] == level


def test_an_ordered_prior_can_learn_any_distribution():
    torch.manual_seed(0)
    prior = make_prior(LEVELS, 32, tiny_config())
    wanted = torch.tensor([0.5, 0.0, 0.1, 0.4])
    features, present = torch.ones(1, 32), torch.full((1, 3), 1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-(prior(features, present, 4)[0].log_softmax(-1) * wanted).sum()).backward()
        optimizer.step()
    assert (prior(features, present, 4)[0].softmax(-1) - wanted).abs().max() < 0.05


def test_a_latent_spec_splits_codes_into_its_blocks():
    spec = LatentSpec((RAGGED, GRID))
    z = torch.arange(12)
    parts = spec.split(z[None])
    assert spec.groups == 12 and parts["pose"].tolist() == [[0, 1, 2]] and parts["image"].tolist() == [list(range(3, 12))]
    assert LatentEmbedding(spec, 4, 6)(torch.zeros(2, 7, 12, dtype=torch.int64)).shape == (2, 7, 6)


def test_text_points_at_what_it_names_wherever_that_lies():
    """Learned on a cell in one place, "find the symbol that is my word" holds in every other."""
    torch.manual_seed(0)
    blocks = (LatentBlock("view", "grid", (4,) * 4, layout=(2, 2)), LatentBlock("word", "text", (4,), static=True))
    embedding = LatentEmbedding(LatentSpec(blocks), 8, 16, text_heads=1)
    guide = embedding.guides[0]
    assert isinstance(guide, TextGuide)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=3e-2)

    def pointed(view: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        places: list[torch.Tensor] = []
        hook = guide.places.register_forward_pre_hook(lambda module, inputs: places.append(inputs[0]))
        embedding(torch.cat([view, word], -1))
        hook.remove()
        return places[0]  # (N, 4 cells), one head

    words = torch.tensor([[1], [2], [3]])
    first = torch.tensor([[symbol, 0, 0, 0] for symbol in (1, 2, 3) for word in (1, 2, 3)])
    target = torch.eye(3).flatten().unsqueeze(-1) * torch.tensor([1.0, 0, 0, 0])  # similar where it is named, else not
    for _ in range(100):
        loss = (pointed(first, words.repeat(3, 1)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    elsewhere = torch.tensor([[2, 3, 1, 0], [0, 3, 1, 2], [3, 0, 2, 1]])
    assert pointed(elsewhere, words).argmax(-1).tolist() == [2, 3, 0]
    absent = torch.tensor([[2, 3, 0, 0], [1, 3, 0, 0], [1, 2, 0, 0]])
    assert pointed(absent, words).max() < 0.3, "and nothing is like it where it is not"


def test_without_text_heads_there_is_no_guide():
    blocks = (LatentBlock("view", "grid", (4,) * 4, layout=(2, 2)), LatentBlock("word", "text", (4,), static=True))
    embedding = LatentEmbedding(LatentSpec(blocks), 8, 16)
    assert not embedding.guides and embedding.similarity_width == 0


def test_similarities_come_text_by_grid_head_by_head_and_cell_by_cell():
    blocks = (
        LatentBlock("view", "grid", (4,) * 4, layout=(2, 2)),
        LatentBlock("map", "grid", (4,) * 2, layout=(1, 2)),
        LatentBlock("word", "text", (4,), static=True),
    )
    torch.manual_seed(0)
    embedding = LatentEmbedding(LatentSpec(blocks), 8, 16, text_heads=2)
    assert embedding.similarity_width == 2 * (4 + 2)
    near, far = torch.tensor([[1, 2, 3, 0, 3, 1, 2], [1, 2, 0, 0, 3, 1, 2]])
    same = embedding.similarities(near) == embedding.similarities(far)
    assert same.tolist() == [True, True, False, True] * 2 + [True] * 4, "a cell counts where it lies, and nowhere else"
    other = embedding.similarities(torch.tensor([1, 2, 3, 0, 3, 1, 3])) != embedding.similarities(near)
    assert other.all(), "another word is like other cells"
