"""Pictures of what is among the results.

    python -m benchmarks.picture [--out docs/results.png] [--novelty docs/novelty.png]

The first: env steps to 0.9 success on the hardest task of each family, a dot for every seed. Of each learner and seed the newest
run counts, of those without overrides. A run that never got there stands at the end of its budget, marked by a cross. The second:
how well changed environments are told from that trained on, by single observations (`benchmarks.ood`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.provenance import ROOT
from benchmarks.store import Results

RESULTS = ROOT / "benchmarks" / "results"
COLOURS = {"Strata, flat": "#1f6f8b", "Strata, director": "#7a9e3f", "PPO (stable-baselines3)": "#c2703d"}


@dataclass(frozen=True)
class Row:
    """One learner on one family of tasks: `variant` of the results of benchmark `name`."""

    family: str
    learner: str
    name: str
    variant: str


ROWS = (
    Row("DoorKey 5x5 → 6x6 → 8x8", "Strata, flat", "doorkey", "ours"),
    Row("DoorKey 5x5 → 6x6 → 8x8", "PPO (stable-baselines3)", "doorkey", "peer"),
    Row("DoorKey 5x5 → 16x16", "Strata, flat", "hierarchy", "doorkey/flat"),
    Row("DoorKey 5x5 → 16x16", "Strata, director", "hierarchy", "doorkey/director"),
    Row("MultiRoom N2 → N4 → N6", "Strata, flat", "hierarchy", "multiroom/flat"),
    Row("MultiRoom N2 → N4 → N6", "Strata, director", "hierarchy", "multiroom/director"),
    Row("KeyCorridor S3R1 → S3R3", "Strata, flat", "hierarchy", "keycorridor/flat"),
    Row("KeyCorridor S3R1 → S3R3", "Strata, director", "hierarchy", "keycorridor/director"),
)


def newest(row: Row, results: Path = RESULTS) -> dict[int, tuple[float, bool]]:
    """{seed: (env steps, whether it got there)}; of a run that did not, the steps that it took."""
    records = [
        r for r in Results(results, row.name).load() if r["variant"] == row.variant and not r["overrides"] and not r["error"]
    ]
    found = {r["seed"]: r for r in sorted(records, key=lambda r: str(r["finished"]))}
    return {
        seed: (float(r["reached"] or r["figures"]["env_steps"]), r["reached"] is not None) for seed, r in sorted(found.items())
    }


def draw(out: Path, results: Path = RESULTS) -> int:
    """Write the picture; answers how many runs it shows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [(row, found) for row in ROWS if (found := newest(row, results))]
    families = list(dict.fromkeys(row.family for row, _ in shown))
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.45 * len(shown) + 0.3 * len(families)), layout="constrained")
    places, names, place = [], [], 0.0
    for family in families:
        for row, found in (pair for pair in shown if pair[0].family == family):
            for steps, reached in found.values():
                axes.plot(steps, place, "o" if reached else "x", color=COLOURS[row.learner], markersize=7, alpha=0.85)
            places.append(place)
            names.append(f"{family}\n{row.learner}")
            place -= 1.0
        place -= 0.4
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(place + 0.9, 0.6)
    axes.set_xscale("log")
    missed = any(not reached for _, found in shown for _, reached in found.values())
    legend = "; a dot a seed" + ", a cross: not by then" * missed
    axes.set_xlabel(f"env steps on all tasks until 0.9 success on the hardest{legend}", fontsize=9)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.set_xticks([10_000, 20_000, 50_000, 100_000, 200_000, 300_000])
    axes.minorticks_off()
    axes.grid(axis="x", which="both", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(out, dpi=130)
    plt.close(figure)
    return sum(len(found) for _, found in shown)


def draw_novelty(out: Path, results: Path = RESULTS) -> int:
    """Write the ROC of the novelty score, a curve a changed environment, the mean over seeds; answers how many it shows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [r for r in Results(results, "ood").load() if not r["overrides"] and not r["error"]]
    if not records:
        return 0
    seeds = [record["figures"]["changed"] for record in sorted(records, key=lambda r: r["seed"])]
    changed = seeds[0].keys()
    figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#8a94a0", linewidth=1, linestyle=":")
    for name in changed:
        rates = [0.0, *np.mean([found[name]["roc"] for found in seeds], 0)]  # what is told at no false alarm stands on the axis
        false = [0.0, *(i / (len(rates) - 2) for i in range(len(rates) - 1))]
        areas = " ".join(f"{found[name]['auc']:.2f}" for found in seeds)
        axes.plot(false, rates, label=f"{name.replace('_', ' ')}: {areas}", linewidth=1.5)
    axes.set_xlabel("share of usual observations above the threshold", fontsize=9)
    axes.set_ylabel("share of strange ones above it", fontsize=9)
    axes.legend(title="changed environment: AUC of each seed", fontsize=8, title_fontsize=8, loc="lower right")
    axes.grid(alpha=0.25)
    figure.savefig(out, dpi=130)
    plt.close(figure)
    return len(changed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.png", help="default: docs/results.png")
    parser.add_argument("--novelty", type=Path, default=ROOT / "docs" / "novelty.png", help="default: docs/novelty.png")
    given = parser.parse_args(argv)
    print(f"{draw(given.out)} runs: {given.out}")
    print(f"{draw_novelty(given.novelty)} changed environments: {given.novelty}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
