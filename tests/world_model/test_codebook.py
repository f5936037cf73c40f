"""The codebook: what becomes an entry, what entries become, and what happens once there is no room."""

from __future__ import annotations

import torch

from world_model.codebook import Codebook


def book(*vectors: list[float], size: int = 4, radius: float = 0.1) -> Codebook:
    codebook = Codebook(size, len(vectors[0]) if vectors else 2, radius)
    for vector in vectors:
        codebook.observe(torch.tensor([vector]))
    return codebook


def test_it_begins_with_zeros_and_what_is_near_them_adds_nothing():
    codebook = book([0.05, -0.05])
    assert codebook.used == 1 and codebook.nearest(torch.tensor([[9.0, 9.0]]))[0].tolist() == [0]


def test_what_is_farther_than_the_radius_from_all_becomes_an_entry_however_rare():
    codebook = Codebook(4, 2, radius=0.1)
    many = torch.zeros(1000, 2)
    many[7] = torch.tensor([0.0, 0.2])  # root mean square distance 0.2 / sqrt 2 = 0.14
    codebook.observe(many)
    assert codebook.used == 2
    codes, distance = codebook.nearest(torch.tensor([[0.0, 0.2], [0.0, 0.0], [0.0, 0.12]]))
    assert codes.tolist() == [1, 0, 1]
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.0, 0.0032]), atol=1e-6, rtol=0)


def test_entries_are_the_means_of_their_members():
    codebook = Codebook(4, 1, radius=0.1)
    codebook.observe(torch.tensor([[1.0], [1.06], [0.0]]))
    codebook.observe(torch.tensor([[1.03], [1.03]]))
    torch.testing.assert_close(codebook.values[:2, 0], torch.tensor([0.0, 1.03]))
    assert codebook.weight.tolist() == [1, 4, 0, 0]


def test_a_full_book_merges_its_closest_entries_for_something_much_farther_away():
    codebook = book([1.0, 1.0], [1.0, 1.0], [3.0, 3.0], [1.3, 1.3])
    assert codebook.used == 4
    codebook.observe(torch.tensor([[9.0, 9.0]]))
    torch.testing.assert_close(codebook.values[:, 0], torch.tensor([0.0, 1.1, 3.0, 9.0]))  # (2 * 1.0 + 1 * 1.3) / 3 = 1.1
    assert codebook.weight.tolist() == [0, 3, 1, 1] and codebook.used == 4


def test_a_full_book_takes_in_nothing_that_is_no_farther_away_than_its_entries_are_from_each_other():
    codebook = book([1.0, 1.0], [2.0, 2.0], [3.0, 3.0])
    codebook.observe(torch.tensor([[4.1, 4.1]]))
    torch.testing.assert_close(codebook.values[:, 0], torch.tensor([0.0, 1.0, 2.0, (3.0 + 4.1) / 2]))


def test_codes_mean_the_same_after_loading_and_new_entries_are_added_behind_them():
    codebook, loaded = book([1.0, 1.0], [2.0, 2.0]), Codebook(4, 2, 0.1)
    loaded.load_state_dict(codebook.state_dict())
    assert loaded.nearest(torch.tensor([[2.0, 2.0]]))[0].tolist() == [2]
    loaded.observe(torch.tensor([[3.0, 3.0]]))
    assert loaded.nearest(torch.tensor([[3.0, 3.0]]))[0].tolist() == [3] and loaded.used == 4


def test_it_says_how_many_codes_are_in_use_in_steps_that_seldom_change():
    codebook = Codebook(40, 1, 0.1)
    assert codebook.in_use == 16
    codebook.observe(torch.arange(17.0).unsqueeze(-1))
    assert codebook.in_use == 32
    codebook.observe(torch.arange(38.0).unsqueeze(-1))
    assert codebook.in_use == 40
