"""Many environments stepped together, each on a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.delivery import EnvSlot, SlotStep
from envs.errors import UserError
from envs.faults import FaultError, FaultLedger
from envs.guards import BatchCheck, Bounds
from envs.pools import LocalPool, Pool, WorkerPool
from envs.rewards import RewardTerms
from envs.spaces.specs import EnvSpec
from envs.splits import next_seed
from envs.tasks import Task, TaskSpace

VECTORIZATIONS = ("sync", "async")
Observations = dict[str, np.ndarray]  # modality key -> (num_envs, *shape)


class StepResult(NamedTuple):
    """What one step of all environments brought.

    Attributes:
        obs: `{modality key: (num_envs, *shape)}`; of an episode that ended, its last observation.
        reward: float32 (num_envs,), as the environment gave it.
        terminated: bool (num_envs,): the task itself ended the episode.
        truncated: bool (num_envs,): the episode was cut off (a time limit); both may be true.
        infos: the environment's info for episodes that ended, an empty dict for the rest.
        terms: float32 (num_envs, terms), the reward terms of `env.rewards` before weighting, where they are measured.
        dropped: bool (num_envs,): the environment broke down in this step, so the step never was: the episode ends, truncated, at
            the observation before it, which is given once more with a reward of 0. None where nothing broke down.
    """

    obs: Observations
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: list[dict[str, Any]]
    terms: np.ndarray | None = None
    dropped: np.ndarray | None = None


class TaskVectorEnv:
    """Slots that are stepped together; what ended is reset, by mask, before the next step.

    Faults of environments are counted in `faults`; what is faulty is built anew, within the allowance.

    Args:
        slots: builders of the slots, which take a `deadline`; picklable where they are to run in processes of their own.
        spec: what they deliver.
        tasks: what they can be asked to play.
        vectorization: `sync` (one after the other, here) or `async` (a process each).
        held_out: ids of the tasks whose layouts are split into train, validation and test.
        terms: reward terms that are measured at every step.
        bounds: declared bounds of vectors, to count numbers beyond them.
        step_timeout: seconds a step may take, 0 for no limit.
        max_faults: how many faults that cost an episode are let pass.
    """

    def __init__(
        self,
        slots: Sequence[Callable[..., EnvSlot]],
        spec: EnvSpec,
        tasks: TaskSpace,
        vectorization: str = "sync",
        held_out: frozenset[str] = frozenset(),
        terms: RewardTerms | None = None,
        bounds: Bounds | None = None,
        step_timeout: float = 0.0,
        max_faults: int = 0,
    ) -> None:
        self.spec = spec
        self.terms = terms
        self.again: Callable[[int, str], TaskVectorEnv] | None = None  # builds so many more of the same kind; picklable
        self.tasks = tasks
        self.num_envs = len(slots)
        self.held_out = held_out
        self.faults = FaultLedger(max_faults)
        if vectorization not in VECTORIZATIONS:
            raise UserError(f"env.vectorization={vectorization} is unknown; choose one of {', '.join(VECTORIZATIONS)}.")
        self._pool: Pool = (LocalPool if vectorization == "sync" else WorkerPool)(slots, step_timeout)
        self._check = BatchCheck(spec, bounds)
        self._faulty: set[int] = set()  # to be built anew before they are played again
        self._playing = [""] * self.num_envs  # task ids
        self._started = False
        self._ended = np.ones(self.num_envs, bool)
        self._layouts = [""] * self.num_envs
        self._obs: Observations = {leaf.key: np.zeros((self.num_envs, *leaf.shape), leaf.dtype) for leaf in spec.observations}

    @classmethod
    def of_slot(cls, slot: Callable[..., EnvSlot], number: int, vectorization: str, **named: Any) -> TaskVectorEnv:
        """`number` slots of one kind."""
        return cls([slot] * number, vectorization=vectorization, **named)

    def reset(self, tasks: Sequence[Task | None], mask: np.ndarray | None = None) -> Observations:
        """Start an episode of `tasks[i]`, under its own seed, in every environment of `mask` (all if not given).

        Where an environment breaks down in its reset it is built anew and tried again, under the next seed of its task's chain.

        Returns:
            The observations of all environments, `{modality key: (num_envs, *shape)}`, those outside the mask as they were.

        Raises:
            UserError: more faults than are let pass.
        """
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask, bool)
        if len(tasks) != self.num_envs or mask.shape != (self.num_envs,):
            raise ValueError(f"needs one task and one mask entry for each of {self.num_envs} environments")
        if not self._started and not mask.all():
            raise ValueError("the first reset has to start every environment")
        asked: dict[int, Task] = {}
        for i in np.flatnonzero(mask).tolist():
            task = tasks[i]
            if task is None or task.seed is None:
                raise ValueError("every environment that is reset needs a task that carries a seed")
            asked[i] = task
        self._obs = self._copy()
        while asked:
            asked = self._begin(asked)
        self._started = True
        return self._copy()

    def _begin(self, asked: dict[int, Task]) -> dict[int, Task]:
        """Try to start episodes; answers what to try next for those that could not be."""
        again: dict[int, Task] = {}
        afresh, self._faulty = self._faulty & asked.keys(), self._faulty - asked.keys()
        answers = self._pool.begin(asked, afresh)
        faults: dict[int, FaultError] = {}
        for i, answer in answers.items():
            self._playing[i] = asked[i].id
            if isinstance(answer, FaultError):
                faults[i] = answer
                continue
            self._layouts[i] = answer.layout
            self._ended[i] = False
            for key, rows in self._obs.items():
                rows[i] = answer.obs[key]
        faults |= {i: fault for i, fault in self._check(self._obs).items() if i in answers and i not in faults}
        for i, fault in faults.items():
            self._drop(i, fault)
            again[i] = asked[i].with_seed(next_seed(int(asked[i].seed or 0)))
        return again

    def step(self, actions: np.ndarray) -> StepResult:
        """Take `actions` (num_envs, *spec.action.shape), one in each environment.

        Raises:
            RuntimeError: an environment whose episode ended was not reset.
            UserError: more faults than are let pass.
        """
        if self._ended.any():
            raise RuntimeError(f"environments {np.flatnonzero(self._ended).tolist()} need a reset before the next step")
        answers = self._pool.step(list(actions))
        faults = {i: answer for i, answer in enumerate(answers) if isinstance(answer, FaultError)}
        steps = [self._nothing(i) if isinstance(answer, FaultError) else answer for i, answer in enumerate(answers)]
        observed, rewards, *_ = zip(*steps, strict=True)
        obs = {key: np.empty_like(rows) for key, rows in self._obs.items()}
        for key, rows in obs.items():
            for i, observation in enumerate(observed):
                rows[i] = observation[key]
        reward = np.array(rewards, np.float32)
        for i, detail in self._check.beyond_bounds(obs).items():
            self.faults.note("out_of_bounds", i, self._playing[i], detail)
        for i, fault in (self._check(obs, reward) | faults).items():
            self._drop(i, fault)
            faults[i], steps[i], reward[i] = fault, self._nothing(i), 0.0
            for key, rows in obs.items():
                rows[i] = self._obs[key][i]
        _, _, ends, cuts, last_infos, odd, _ = zip(*steps, strict=True)
        terminated, truncated = np.array(ends), np.array(cuts)
        self._obs, self._ended = obs, terminated | truncated
        infos = [{} if info is None else info for info in last_infos]
        if any(odd):
            for i, detail in enumerate(odd):
                if detail:
                    self.faults.note("odd_info", i, self._playing[i], detail)
        dropped = np.array([i in faults for i in range(self.num_envs)]) if faults else None
        return StepResult(self._copy(), reward, terminated, truncated, infos, self._stack_terms(steps), dropped)

    def layout(self, i: int) -> str:
        """The name (a hash) of the layout that environment `i` is playing."""
        return self._layouts[i]

    def close(self) -> None:
        self._pool.close()

    def _drop(self, i: int, fault: FaultError) -> None:
        self._faulty.add(i)
        self.faults.drop(fault, i, self._playing[i])

    def _nothing(self, i: int) -> SlotStep:
        """What stands for a step that never was."""
        return SlotStep({key: rows[i] for key, rows in self._obs.items()}, 0.0, False, True)

    def _stack_terms(self, steps: Sequence[SlotStep]) -> np.ndarray | None:
        if self.terms is None:
            return None
        nothing = np.zeros(len(self.terms.terms), np.float32)
        return np.stack([nothing if step.terms is None else step.terms for step in steps])

    def _copy(self) -> Observations:
        return {key: rows.copy() for key, rows in self._obs.items()}
