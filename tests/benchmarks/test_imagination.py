"""How fast imagination is: measured in the smallest model, to see that every way still runs and agrees."""

from __future__ import annotations

import torch

from benchmarks.harness import Options
from benchmarks.imagination import BARS, SETTING, show, summarise
from benchmarks.imagination_measure import measure
from benchmarks.phases_measure import run_config
from benchmarks.training import composed_config


def test_all_ways_are_measured_and_shown_beside_their_bars():
    sizes = ["model=debug", "train.batch=2", "hierarchy.starts=2", "hierarchy.horizon=3", "model.window=8"]
    threads = torch.get_num_threads()
    try:
        figures = measure(run_config(composed_config([*SETTING, *sizes]), 1), 1, 4, 1)
    finally:
        torch.set_num_threads(threads)
    assert figures["states"] == 4 and figures["largest_difference"] < 1e-4
    assert all(figures[name] > 0 for name in BARS) and all(rate > 0 for rate in figures["steps_per_second"].values())
    ours, rssm = figures["parameters"].values()
    assert abs(ours - rssm) < 0.5 * ours, "of as many parameters"
    record = {"variant": "debug, 1 thread", "seed": 1, "error": None, "figures": figures}
    slower = record | {"variant": "debug, 2 threads", "figures": figures | {"ratio_to_rssm": figures["ratio_to_rssm"] / 2}}
    result = summarise(Options(), [record, slower])
    assert result["ratio_to_rssm"] == figures["ratio_to_rssm"] / 2 and result["decoder_speedup"] == figures["decoder_speedup"]
    assert summarise(Options(), [record, record | {"error": "broke", "figures": None}])["ratio_to_rssm"] is None
    table = show(summarise(Options(), [record]))
    assert table.row_count == len(BARS) + len(figures["steps_per_second"]) + 3
