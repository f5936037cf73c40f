"""One update: the world model on a batch of sequences, then the hierarchy inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from agent.processes import Processes, tokenize_together
from agent.sequences import SequenceBatch
from agent.signals import Signals, task_signals, told_by
from agent.timing import PhaseTimer
from hierarchy.base import Hierarchy
from hierarchy.config import HierarchyConfig
from hierarchy.trajectory import LatentTrajectory
from world_model.augmentation import check_cells, shift_frames
from world_model.batch import ModelOutput, Sequences
from world_model.engines.base import EPS, Engine
from world_model.gradients import gradient_norms, hierarchy_parts
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.starts import choose_starts, previous_history
from world_model.usage import code_counts


@torch.no_grad()
def real_trajectory(
    model: WorldModel, output: ModelOutput, batch: Sequences, log_prob: Tensor, discovery: float = 0.0, explore: float = 0.0
) -> LatentTrajectory:
    """A training pass over real sequences (B, T) as trajectories of T - 1 steps, ends of episodes marked.

    With `discovery` what is news in a step counts as reward, so many times, as in imagination; with `explore` so does how far the
    ensemble is apart about it.
    """
    reward = batch.reward[:, 1:]
    if discovery:
        recalled = {key: x[:, :-1] for key, x in output.context.recalled.items()}
        reward = reward + discovery * model.discovered(recalled, output.z[:, 1:])
    if explore:
        reward = reward + explore * model.disagreement(output.h[:, :-1])
    return LatentTrajectory(
        z=output.z,
        h=model.view(output.z, previous_history(output.h, batch.first), output.context.maps),
        action=batch.action[:, :-1],
        log_prob=log_prob[:, :-1],
        reward=reward,
        cont=(~batch.terminated[:, 1:]).float(),
        weight=(~batch.last).float(),
        boundary=batch.last,
        source="real",
    )


class Learner:
    """Holds the policy's optimiser and counts updates; the world model's optimiser is the engine's."""

    def __init__(
        self,
        engine: Engine,
        hierarchy: Hierarchy,
        config: HierarchyConfig,
        batch: int,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        """`batch` is the number of sequences of this process; the others have as many."""
        self.engine, self.hierarchy, self.config, self.device = engine, hierarchy, config, device
        self.batch, self.processes = batch, processes or Processes()
        self.model = engine.inference_copy()
        check_cells(self.model.latents, self.model.config.augment.cell_dropout)
        self.imagination = ImaginationEnv(self.model, config.horizon, batch * config.starts, device)
        self.parameters = [p for p in hierarchy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.actor_critic.lr, eps=EPS, fused=True)
        self.parts = hierarchy_parts(hierarchy)
        self.updates = 0
        self.required_signals: frozenset[str] = frozenset()  # those of the curriculum
        self.task_ids: tuple[str, ...] = ()
        self.signals: Signals = {}  # of the last update, by task
        self.began = torch.zeros(0, 0, dtype=torch.int64)  # (B, S) steps of the last batch that were imagined from
        # Of the last update looked at, for every learned block seen: how often each code came, and how many there are to use.
        self.codes: dict[str, tuple[Tensor, int]] = {}

    def sequences(self, batch: SequenceBatch, augment: bool = False) -> Sequences:
        """A batch from replay as tensors on the device; with `augment` its images are shifted as `model.augment.shift` says."""
        obs, shift = batch.obs, self.model.config.augment.shift if augment else 0
        images = [leaf.key for leaf in self.model.spec.observations if leaf.kind == "image"] if shift else []
        obs = obs | {key: shift_frames(obs[key], shift) for key in images}
        tokens = tokenize_together(
            self.model, obs, images, self.processes
        )  # cells of shifted images look new: they need codes, too

        def tensor(x: object) -> Tensor:
            return torch.as_tensor(x, device=self.device)

        return Sequences(
            obs={key: x.to(self.device) for key, x in tokens.items()},
            action=tensor(batch.action),
            reward=tensor(batch.reward),
            first=tensor(batch.first),
            terminated=tensor(batch.terminated),
            truncated=tensor(batch.truncated),
            before=None if batch.before is None else self.sequences(batch.before),
        )

    def update(
        self, batch: SequenceBatch, timer: PhaseTimer, policy: bool = True, look: bool = False
    ) -> dict[str, Tensor | float]:
        """Train the model, and with `policy` the hierarchy too. Answers what to log; with `look` the gradient norms of all parts,
        `gradients/PART`, are among it, and `codes` is filled in: of modalities absent from the whole batch there is neither."""
        with timer("model"):
            sequences = self.sequences(batch, augment=True)
            output, metrics = self.engine.train_step(sequences, look)
        log: dict[str, Tensor | float] = {"model/grad_norm": metrics.pop("grad_norm")}
        log |= {name.replace("grad_norm", "gradients", 1): value for name, value in metrics.items()}
        for name, value in (output.losses | output.metrics).items():
            log[f"model/{name}"] = value
        log["model/total"] = output.loss.detach()
        if self.required_signals:
            with timer("curriculum"):  # before the policy, whose work on a device nothing here is to wait for
                self.signals = task_signals(self.required_signals, self.model, output, sequences, batch.task, self.task_ids)
        if policy:
            log |= self._learn_policy(output, sequences, torch.as_tensor(batch.log_prob, device=self.device), timer, look)
        if policy and self.required_signals & self.hierarchy.told.keys():
            began = torch.as_tensor(batch.task, device=self.device).gather(1, self.began).flatten()
            for task, found in told_by(self.hierarchy.told, self.required_signals, began, self.task_ids).items():
                self.signals.setdefault(task, {}).update(found)
        if look:
            self.codes = self._counts(output.z)
            for key, there in self.model.latents.present(output.z).items():
                if not there.any():  # its encoder had nothing to read
                    self.codes.pop(key, None)
                    log.pop(f"gradients/encoder/{key}", None)
        self.updates += 1
        return log

    def validate(self, batch: SequenceBatch) -> dict[str, float]:
        """Losses and accuracies of held-out sequences, `validation/NAME`; nothing is learned from them."""
        output = self.engine.validate(self.sequences(batch))
        found = {"total": output.loss, **output.losses, **output.metrics}
        return {f"validation/{name}": value.item() for name, value in found.items()}

    def _counts(self, z: Tensor) -> dict[str, tuple[Tensor, int]]:
        codes, there = self.model.latents.split(z), self.model.latents.present(z)
        found = {}
        for block in self.model.latents.blocks:
            if block.learned or block.kind == "image":
                own = codes[block.key][there[block.key]] if block.key in there else codes[block.key]
                found[block.key] = code_counts(block, own), self.model.modality(block.key).given_out
        return found

    def _learn_policy(
        self, output: ModelOutput, sequences: Sequences, log_prob: Tensor, timer: PhaseTimer, look: bool = False
    ) -> dict[str, Tensor | float]:
        self.imagination.watch = lambda: timer("imagination")
        with timer("policy"):
            starts = choose_starts(output, sequences, self.config.starts)
            self.began = starts.step
            bonus = self.config.discovery, self.hierarchy.explores
            real = real_trajectory(self.model, output, sequences, log_prob, *bonus)
            norms: dict[str, Tensor] = {}
            steps: list[dict[str, Tensor]] = []  # what every minibatch says, to be averaged
            for learning in self.hierarchy.learn(self.imagination, starts, real):
                self.optimizer.zero_grad(set_to_none=True)
                learning.loss.backward()
                self.processes.average([p.grad for p in self.parameters if p.grad is not None])
                if look:  # before clipping; the greatest, as a step may be for one part alone
                    found = gradient_norms({part: [p.grad for p in own] for part, own in self.parts.items()})
                    norms = {part: torch.maximum(norm, norms.get(part, norm)) for part, norm in found.items()}
                norm = nn.utils.clip_grad_norm_(self.parameters, self.config.actor_critic.grad_clip)
                self.optimizer.step()
                learning.after()
                steps.append({"grad_norm": norm, **learning.metrics})
            # Scales and counts that every process moves by its own rollouts.
            self.processes.average([x for x in self.hierarchy.buffers() if x.is_floating_point()], exact=True)
        log: dict[str, Tensor | float] = {
            name if "/" in name else f"policy/{name}": value for name, value in mean_of_each(steps).items()
        }
        return log | {f"gradients/{part}": norm for part, norm in norms.items()}


def mean_of_each(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every name over the steps that have it, where the tensors live: nothing waits for a GPU."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: torch.stack([step[name].detach().float() for step in steps if name in step]).mean() for name in names}
