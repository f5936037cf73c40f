"""Tables for the console."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from envs.spaces.actions import describe_actions
from envs.spaces.inference import inference_table
from envs.spaces.specs import EnvSpec

OVERRIDE = "env.modalities.KEY=KIND, static, changing, optional or ignore reads a part otherwise; env.wrappers changes actions"


def spec_table(spec: EnvSpec) -> Table:
    """What was inferred from which space, what the agent can do, and how to change it."""
    table = Table("", "space", "kind", "shape", "static", title="What the agent observes and does", caption=OVERRIDE)
    for row in inference_table(spec):
        table.add_row(*(escape(cell) for cell in row))
    table.add_section()
    shape = "x".join(map(str, spec.action.shape))
    table.add_row("action", escape(describe_actions(spec.action)), spec.action.kind, shape, "")
    return table
