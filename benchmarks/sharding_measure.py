"""One measurement of sharded training, in as many processes as a launcher starts: losses of recorded batches, or bytes held."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.build import make_policy
from agent.config import RunConfig
from agent.learner import Learner
from agent.replay import Replay, SampleMix
from benchmarks.phases_measure import run_config
from benchmarks.store import write_json
from envs import make_envs, make_task_space
from envs.make import infer_spec
from envs.spaces.actions import no_actions
from world_model.batch import Sequences
from world_model.config import ShardingConfig
from world_model.engines import Engine, make_engine
from world_model.memory import TrainingMemory, predict, split_parameters
from world_model.model import WorldModel

DEVICE = torch.device("cpu")
RECORDED = 1200  # steps of random play in each environment
PARTS = ("parameters", "gradients", "optimizer")


def engine_of(config: RunConfig, spec: Any, stage: int | None, **sharding: Any) -> Engine:
    """An engine for the model of `config`, the same first weights in each; `stage` None is plain PyTorch."""
    torch.manual_seed(config.seed)
    settings = ShardingConfig() if stage is None else ShardingConfig("deepspeed", stage, **sharding)
    return make_engine(settings, lambda: WorldModel(spec, config.model), DEVICE)


def rank_and_size() -> tuple[int, int]:
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


# -- losses --------------------------------------------------------------------------------------------------------------


def record_batches(config: RunConfig, updates: int) -> list[Sequences]:
    """Batches as training draws them, of random play in real environments. Their codes are those of one process's tables."""
    tasks = make_task_space(config.env)
    envs = make_envs(config.env, tasks)
    rng = np.random.default_rng(config.seed)
    replay = Replay(envs.spec, envs.num_envs, config.replay.capacity, tasks.ids)
    everywhere = np.arange(envs.num_envs)

    def begin(which: np.ndarray) -> None:
        mask = np.isin(everywhere, which)
        chosen = [tasks.tasks[-1].with_seed(int(rng.integers(2**31))) if on else None for on in mask]
        obs = envs.reset(chosen, mask)
        zeros = np.zeros(len(which), np.int64)
        learn = np.ones(len(which), bool)
        replay.start(which, {key: value[which] for key, value in obs.items()}, zeros + len(tasks.ids) - 1, zeros, learn)

    begin(everywhere)
    for _ in range(RECORDED):
        action = no_actions(envs.spec.action, envs.num_envs)
        action[:] = rng.integers(envs.spec.action.size, size=action.shape)
        replay.act(action, np.zeros(envs.num_envs, np.float32))
        result = envs.step(action)
        replay.arrive(result.obs, result.reward.astype(np.float32), result.terminated, result.truncated, result.dropped)
        if (ended := result.terminated | result.truncated).any():
            begin(np.flatnonzero(ended))
    engine = engine_of(config, envs.spec, None)
    model = engine.inference_copy()
    hierarchy = make_policy(config, model)
    learner = Learner(engine, hierarchy, config.hierarchy, config.train.batch, DEVICE)
    drawn = [replay.sample(config.train.batch, config.train.length, rng, SampleMix()) for _ in range(updates)]
    for batch in drawn:
        model.tokenize(batch.obs, grow=True)
    found = [learner.sequences(batch) for batch in drawn]
    envs.close()
    return found


def share(batch: Sequences, rank: int, size: int) -> Sequences:
    """The rows of one process."""
    return batch.apply(lambda x: x[rank::size])


def losses(given: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """The loss of every update on the recorded batches; of several processes the mean over them."""
    rank, size = rank_and_size()
    path = Path(given["batches"])
    if not path.exists():
        batches = record_batches(config, given["updates"])
        torch.save([{f.name: getattr(batch, f.name) for f in fields(batch)} for batch in batches], path)
    batches = [Sequences(**batch) for batch in torch.load(path, weights_only=True)]
    spec = infer_spec(config.env, make_task_space(config.env))
    keys = {key: given[key] for key in ("persistence", "tensor_parallel") if key in given and given["stage"] is not None}
    engine = engine_of(config, spec, given["stage"], **keys)
    found = []
    for batch in batches:
        output, _ = engine.train_step(share(batch, rank, size))
        loss = output.loss.detach().clone()
        if size > 1:
            torch.distributed.all_reduce(loss)
        found.append(float(loss) / size)
    return {"loss": found}


# -- memory --------------------------------------------------------------------------------------------------------------


def held_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the memory that tensors are kept in, counted once where they share it."""
    memory = (x.untyped_storage() for x in tensors if x is not None)
    return sum({part.data_ptr(): part.nbytes() for part in memory}.values())


def held(engine: Any) -> dict[str, int]:
    """What an engine holds between a backward pass and its step, by part."""
    parameters, stage = engine._parameters, engine.stage
    weights = [p.data for p in parameters] + [getattr(p, "ds_tensor", None) for p in parameters]
    states = [x for state in engine.optimizer.state.values() for x in state.values() if x.numel() > 1]
    gradients: list[Tensor | None] = [p.grad for p in parameters]
    sharded = engine.engine.optimizer
    if stage in (1, 2):
        gradients += [x for group in sharded.averaged_gradients.values() if group is not None for x in group]
    if stage == 3:
        gradients.append(sharded.grad_partitions_flat_buffer)
    return {
        "parameters": held_bytes(weights),
        "gradients": held_bytes(gradients),
        "optimizer": held_bytes(states) + (held_bytes(engine._shards()) if stage else 0),
    }


def memory(given: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Bytes held by the process that holds most beside those predicted, and the largest error of a part in percent."""
    _, size = rank_and_size()
    stage, ranks = given["stage"], given.get("tensor_parallel", 1)
    spec = infer_spec(config.env, make_task_space(config.env))
    engine: Any = engine_of(config, spec, stage, gather="step", tensor_parallel=ranks)  # the copy that acts is no training state
    split = split_parameters(engine.model)
    shares = [getattr(parameter, "ds_numel", parameter.numel()) for parameter in engine._parameters]
    sizes = [share * ranks if shared else share for share, shared in zip(shares, split, strict=True)]
    batch = random_batch(engine.model)
    engine.train_step(batch)  # the optimiser's states are made at the first step
    loss, _ = engine.engine(batch)
    engine.engine.backward(loss)
    expected: TrainingMemory = predict(sizes, stage, size, gather="step", ranks=ranks, split=split)
    most = torch.tensor(list(held(engine).values()), dtype=torch.int64)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    found = dict(zip(PARTS, most.tolist(), strict=True))
    errors = [abs(found[part] / getattr(expected, part) - 1) for part in PARTS]
    return {
        "model_parameters": sum(sizes),
        "held": found,
        "predicted": {part: getattr(expected, part) for part in PARTS},
        "error_percent": 100 * max(errors),
    }


def random_batch(model: WorldModel) -> Sequences:
    """Two short sequences: how long they are changes nothing of what is held."""
    rows, length = 2, 4
    rng = np.random.default_rng(0)
    obs = {leaf.key: np.zeros((rows, length, *leaf.shape), leaf.dtype) for leaf in model.spec.observations}
    nowhere = torch.zeros(rows, length, dtype=torch.bool)
    first = nowhere.clone()
    first[:, 0] = True
    action = torch.from_numpy(rng.integers(model.spec.action.size, size=(rows, length)))
    return Sequences(model.tokenize(obs, grow=True), action, torch.zeros(rows, length), first, nowhere, nowhere)


def main() -> None:
    """Measure as the only argument says: `part`, `config`, `seed`, `stage`, `answer` (a path), `tensor_parallel`, and what
    the part needs."""
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    config = run_config(given["config"], given["seed"])
    config = replace(config, device="cpu")
    found = {"losses": losses, "memory": memory}[given["part"]](given, config)
    if rank_and_size()[0] == 0:
        write_json(Path(given["answer"]), found)


if __name__ == "__main__":
    main()
