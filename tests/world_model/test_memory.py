"""What training state takes on each process, by hand. `python -m benchmarks.sharding` holds it against what is held."""

from __future__ import annotations

import pytest
from torch import nn

from world_model.memory import TrainingMemory, parameter_sizes, predict

SIZES = [1000, 7]  # numbers: 4028 bytes


def test_without_sharding_every_process_holds_weights_gradients_and_two_moments():
    assert predict(SIZES, None) == predict(SIZES, 0, processes=4) == TrainingMemory(4028, 4028, 2 * 4028)
    assert predict(SIZES, None).total == 4 * 4028


def test_stages_one_and_two_share_out_gradients_and_what_the_optimiser_holds():
    share = 4 * (500 + 4)  # seven numbers on two processes are four on each
    cut = 4 * 1007  # the gradient of the first parameter is cut, and kept whole on both sides; the second has the other one, too
    assert predict(SIZES, 1, processes=2) == predict(SIZES, 2, processes=2) == TrainingMemory(4028, cut, 3 * share)
    assert predict([500] * 4, 2, processes=2).gradients == 4 * 1000, "nothing is cut"
    assert predict(SIZES, 2, processes=2, offload="optimizer").offloaded == 3 * share


def test_stage_three_shares_out_weights_but_for_small_parameters_and_the_copy():
    share = 4 * (250 + 2)
    found = predict(SIZES, 3, processes=4, persistence=7)
    assert found == TrainingMemory(share + 4 * 7, share, 3 * share, buckets=4028, copy=4028)
    assert predict(SIZES, 3, processes=4, persistence=6).parameters == share
    assert predict(SIZES, 3, processes=4, gather="step").copy == 0
    assert predict(SIZES, 3, processes=4, offload="all").offloaded == 4 * share


def test_tensor_parallelism_halves_what_is_split_and_keeps_a_whole_copy_of_it():
    split = [True, False]
    own = 4 * (500 + 7)
    assert predict(SIZES, 0, processes=2, ranks=2, split=split) == TrainingMemory(own, own, 2 * own, copy=4000)
    share = 4 * (250 + 4)  # two groups of two: what is left is sharded over the groups
    found = predict(SIZES, 1, processes=4, ranks=2, split=split, offload="optimizer")
    assert found == TrainingMemory(own, own, 3 * share, copy=4000, offloaded=3 * share)


def test_only_what_is_trained_counts_and_there_are_no_other_stages():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1).requires_grad_(False))
    assert parameter_sizes(model) == [6, 2]
    with pytest.raises(ValueError, match="no stage 4"):
        predict(SIZES, 4)
