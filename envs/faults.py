"""What environments do that they should not: named, counted, and let pass only so often."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from envs.errors import UserError

log = logging.getLogger(__name__)

# kind -> what the environment did. The first six cost the episode: it is dropped, and the environment built anew.
FAULTS: dict[str, str] = {
    "raised": "raised an exception",
    "timeout": "took longer than env.step_timeout",
    "died": "took its worker process down",
    "outside_space": "showed an observation outside of its space",
    "not_finite": "gave an observation or a reward that is not a finite number",
    "space_changed": "changed its spaces",
    "out_of_bounds": "showed numbers beyond the bounds of its space, which are taken as they are",
    "odd_info": "gave an info that is not a dict of named, picklable things, of which only those are kept",
}
HARMLESS = ("out_of_bounds", "odd_info")


class FaultError(Exception):
    """An environment broke a promise in the middle of a run.

    Attributes:
        kind: one of `FAULTS`.
        detail: what exactly, in a few words.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class FaultLedger:
    """Counts the faults of a run's environments; warns of the first of each kind, and refuses the run when there are too many.

    Attributes:
        counts: how often each kind has happened.
        dropped: episodes given up, and resets tried again, because of a fault.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.counts: Counter[str] = Counter()
        self.dropped = 0

    def note(self, kind: str, env: int, task: str, detail: str) -> None:
        """Count a fault that does no harm."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning(
                "environment %d (task %s) %s: %s (told once, counted as env/faults/%s)", env, task, FAULTS[kind], detail, kind
            )

    def drop(self, fault: FaultError, env: int, task: str) -> None:
        """Count a fault that costs an episode.

        Raises:
            UserError: it is one more than `env.max_faults`.
        """
        self.note(fault.kind, env, task, fault.detail)
        self.dropped += 1
        if self.dropped > self.allowed:
            raise UserError(
                f"environment {env} (task {task}) {FAULTS[fault.kind]} ({fault.detail}), and env.max_faults={self.allowed} "
                f"{'such faults have' if self.allowed != 1 else 'such fault has'} been let pass already: mend the environment, "
                f"put a wrapper round it (env.wrappers), or raise env.max_faults{_way_out(fault.kind)}."
            )

    def metrics(self) -> dict[str, float]:
        """`env/faults/KIND` of every kind that has happened."""
        return {f"env/faults/{kind}": float(count) for kind, count in self.counts.items()}

    def state_dict(self) -> dict[str, int]:
        """The counts, as plain data."""
        return dict(self.counts)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from the counts of `state_dict`."""
        self.counts = Counter({kind: int(count) for kind, count in state.items() if kind in FAULTS})
        self.dropped = sum(count for kind, count in self.counts.items() if kind not in HARMLESS)


def _way_out(kind: str) -> str:
    return " or env.step_timeout" if kind == "timeout" else ""
