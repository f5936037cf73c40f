"""How `benchmarks.hierarchy` shows its figures: four tables and some sentences for each family of tasks, 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.compare.statistics import wilson
from benchmarks.hierarchy_figures import AT, CONFIDENCE, PPO, share_of_ppo, swap_counts

THIRD, WITHIN = 1 / 3, 200_000  # what is aimed at: a share of PPO's env steps, and env steps to N6


def show(result: Mapping[str, Any]) -> Group:
    shown: list[RenderableType] = []
    for family, found in result["families"].items():
        variants = {name: figures for name, figures in found["variants"].items() if figures["runs"]}
        if variants:
            tables = [table(found["tasks"], variants) for table in (_learning, _end, _goals, _spent)]
            shown += [table for table in tables if table.row_count]
            shown += [*_sentences(family, found), Text()]
    return Group(*shown)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("variant", overflow="fold", ratio=1)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _learning(tasks: list[str], variants: Mapping[str, Any]) -> Table:
    at = "\n" + " ".join(f"{n // 1000:>3}k" for n in AT)
    table = _table(f"Env steps to 0.9 training success on {tasks[-1]}", "seed", "steps", "area", f"held-out success{at}")
    for name, figures in variants.items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                table.add_row(name, seed, "failed", "", "")
                continue
            steps = f"{run['reached']:,.0f}" if run["reached"] is not None else f"> {run['env_steps']:,.0f}"
            table.add_row(name, seed, steps, f"{run['area']:.2f}", " ".join(f"{x:.2f}" for x in run["at"]))
        if len(figures["runs"]) > 1:
            steps = "never" if figures["steps"] is None else f"{figures['steps']:,.0f}"
            area, mean = (_interval(figures[key]) for key in ("area", "at"))
            table.add_row(name, "all", steps, area, mean, style="bold")
        table.add_section()
    return table


def _end(tasks: list[str], variants: Mapping[str, Any]) -> Table:
    table = _table("At the end", "seed", "held-out", "forgot", "goals shuffled", "none")
    for name, figures in variants.items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                continue
            swapped = run["swapped"]
            shuffled, zeroed = ("", "")
            if swapped:
                of = swapped["task"].rpartition("-")[2]
                shuffled = f"{of} {_success(swapped, 'shuffled')}, {_lost(swapped)}"
                zeroed = _success(swapped, "zeroed")
            held_out = " ".join(f"{x:.2f}" for x in run["held_out"])
            forgot = "-" if run["forgotten"] is None else f"{run['forgotten']:.2f}"
            table.add_row(name, seed, held_out, forgot, shuffled, zeroed)
        table.add_section()
    return table


def _goals(tasks: list[str], variants: Mapping[str, Any]) -> Table:
    """Of directors alone: what their goals do on the task that they are shuffled on, and whether their explorer is ahead."""
    table = _table("Goals", "seed", "of", "heard", "told", "untold", "reached", "explorer ahead")
    for name, figures in variants.items():
        for seed, run in figures["runs"].items():
            goals, lead = (None, None) if run["error"] is not None else (run["goals"], run["lead"])
            if goals is None and lead is None:
                continue
            cells = ["-"] * 5
            if goals is not None:
                cells = [goals["task"].rpartition("-")[2], _heard(goals)]
                cells += [f"{goals[key]:.2f}" if key in goals else "-" for key in ("told", "untold", "reached")]
            table.add_row(name, seed, *cells, "-" if lead is None else f"{lead:+.2f}")
        table.add_section()
    return table


def _heard(goals: Mapping[str, Any]) -> str:
    if "heard" not in goals:
        return "-"
    low, high = wilson(goals["heard"], int(goals["pairs"]))
    return f"{goals['heard']:.2f} ({low:.2f}-{high:.2f})"


def _spent(tasks: list[str], variants: Mapping[str, Any]) -> Table:
    table = _table("What it took", "seed", f"{tasks[-1]} begun by", "env steps", "updates", "seconds")
    for name, figures in variants.items():
        for seed, run in figures["runs"].items():
            if run["error"] is None:
                begun = "never" if run["begun"] is None else f"{run['begun']:,.0f}"
                table.add_row(name, seed, begun, *(f"{run[key]:,.0f}" for key in ("env_steps", "updates", "wall_seconds")))
        table.add_section()
    return table


def _success(swapped: Mapping[str, Any], how: str) -> str:
    return f"{swapped[how]['success']:.2f}" if how in swapped else "-"


def _lost(swapped: Mapping[str, Any]) -> str:
    lost = swapped.get("shuffled", {}).get("lost")  # None where nothing was left to lose
    return "" if lost is None else f"lost {lost:.2f}"


def _interval(found: list[float] | None) -> str:
    return "-" if found is None else f"{found[0]:.2f} ({found[1]:.2f}-{found[2]:.2f})"


def _sentences(family: str, found: Mapping[str, Any]) -> list[Text]:
    """What the columns mean, how what was aimed at came out, and what failed."""
    hardest = found["tasks"][-1]
    lines = [
        f"Held-out success is on {hardest} at equal env steps; the area is its mean over all tasks and {AT[-1]:,} steps. "
        f"Means over seeds with {CONFIDENCE:.0%} bootstrap intervals, which are too narrow of so few; steps are medians. "
        "Forgot: of the easier tasks. Goals are shuffled on the hardest task mastered in training, or solved half of the "
        "time; with none the explorer acts.",
        "Heard: of two goals drawn in one state, how often the worker ends more like the one that it was told (0.5: it ignores "
        "them; intervals are Wilson's, as if pairs were independent). Told, untold: how often it reaches the one, and the other. "
        f"Reached: the same of all goals. Explorer ahead: its training success on {hardest} less that of manager and worker, in "
        "the mean over env steps.",
    ]
    known, longest = PPO[family]
    ppo = " ".join("never" if n is None else f"{n:,}" for n in known)
    lines.append(f"PPO with a sequential curriculum: {ppo} (of {longest:,} at most).")
    for name in ("flat", "director"):
        figures = found["variants"][name]
        if not figures["runs"]:
            continue
        share = share_of_ppo(family, figures["steps"])
        if share is not None:
            lines.append(f"{name}: {share:.2f} of PPO's env steps (aim: a third), {_verdict(share <= THIRD)}.")
        elif any(n is None for n in known):
            within = figures["steps"] is not None and figures["steps"] <= WITHIN
            lines.append(f"{name}: {hardest} within {WITHIN:,} env steps in the median, {_verdict(within)}.")
    for name, gap in (*found["ahead"].items(), *found["better"].items()):
        lines.append(
            f"{name.capitalize()} against {gap['against']} on {hardest} at equal env steps: {gap['difference']:+.2f} "
            f"({gap['low']:+.2f} to {gap['high']:+.2f}), better in {gap['probability']:.0%} of pairs, p {gap['p']:.2f}: "
            f"ahead, {_verdict(gap['ahead'])}."
        )
    for name, figures in found["variants"].items():
        cost, asked = swap_counts(figures)
        if asked:
            lines.append(f"{name.capitalize()}: shuffled goals cost half of the success or more in {cost} of {asked} runs.")
    for name, figures in found["variants"].items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                lines.append(f"{name} seed {seed} failed: {run['error']}")
    return [Text(line) for line in lines]


def _verdict(met: bool) -> str:
    return "met" if met else "not met"
