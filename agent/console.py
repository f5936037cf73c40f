"""What goes to the console, and how."""

from __future__ import annotations

from rich.console import Console

from agent.tables import spec_table
from envs.spaces.specs import EnvSpec

console = Console()


def show_observations(spec: EnvSpec) -> None:
    """Print what was inferred from which space, and what the agent can do."""
    console.print(spec_table(spec))


def print_line(text: str) -> None:
    """A line as it is: neither wrapped, so that paths can be copied, nor coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
