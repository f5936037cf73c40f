"""Layouts kept out of training."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from envs import EnvConfig, make_envs, make_task_space
from envs.splits import SPLITS, can_hold_out, next_seed, split_of


def layouts(config: EnvConfig, split: str, episodes: int, num_envs: int = 8) -> list[str]:
    tasks = make_task_space(config)
    envs = make_envs(config, tasks, num_envs, split)
    found = []
    for first in range(0, episodes, num_envs):
        envs.reset([tasks.hardest.with_seed(first + i) for i in range(num_envs)])
        found += [envs.layout(i) for i in range(num_envs)]
    return found


SMALL = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5"])


def test_layouts_are_shared_out_in_eight_tenths_and_two_single_ones() -> None:
    shares = Counter(split_of(f"layout {i}") for i in range(10_000))
    assert shares["train"] == pytest.approx(8000, abs=150)  # 3.75 standard deviations
    assert shares["validation"] == pytest.approx(1000, abs=110)
    assert shares["test"] == pytest.approx(1000, abs=110)


def test_a_layout_is_in_the_same_split_for_ever() -> None:
    # Results on held-out layouts are comparable only as long as these hold.
    assert [i for i in range(40) if split_of(f"layout {i}") == "test"] == [6, 18, 32]
    assert [i for i in range(40) if split_of(f"layout {i}") == "validation"] == [15, 22]


def test_splits_of_a_small_task_are_disjoint_and_together_all_of_it() -> None:
    found = {split: set(layouts(SMALL, split, 240)) for split in SPLITS}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 48  # DoorKey-5x5 has 48 layouts
    assert all(split_of(layout) == split for split, members in found.items() for layout in members)


def test_the_seed_and_the_split_determine_the_layout() -> None:
    assert layouts(SMALL, "test", 16) == layouts(SMALL, "test", 16, num_envs=4)


def test_initial_states_of_other_environments_are_split_too() -> None:
    config = EnvConfig(id="CartPole-v1")
    found = {split: set(layouts(config, split, 40)) for split in SPLITS}
    assert [len(found[split]) for split in SPLITS] == [40, 40, 40] and len(set.union(*found.values())) == 120


def test_without_holdout_every_layout_is_played() -> None:
    config = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5"], holdout=False)
    assert {split_of(layout) for layout in layouts(config, "train", 80)} == set(SPLITS)


def test_a_task_of_one_layout_is_played_in_every_split_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    config = EnvConfig(id="tests.envs.odd:Line-v0")
    with caplog.at_level(logging.WARNING):
        assert len({layout for split in SPLITS for layout in layouts(config, split, 8)}) == 1
    assert "task Line-v0 has too few layouts" in caplog.text


def test_a_task_of_many_layouts_can_be_held_out_and_one_of_few_cannot() -> None:
    assert can_hold_out(lambda seed: f"layout {seed}")
    assert not can_hold_out(lambda seed: f"layout {seed % 2}")


def test_next_seed_follows_splitmix64() -> None:
    # The reference implementation's first output from state 0 is 0xE220A8397B1DCDAF; its upper 31 bits:
    assert next_seed(0) == 0xE220A8397B1DCDAF >> 33
    chain = [1]
    for _ in range(1000):
        chain.append(next_seed(chain[-1]))
    assert len(set(chain)) == len(chain) and max(chain) < 2**31
