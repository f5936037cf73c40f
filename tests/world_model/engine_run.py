"""Short trainings in a process of their own: process groups, and what DeepSpeed changes in a process, end with it.

    python -m tests.world_model.engine_run '{"out": "FOLDER", "runs": [{"engine": "deepspeed:1"}]}'

Under torchrun every process takes its share of each batch's rows. Each writes what it found to `FOLDER/rank_N.pt`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model.config import AugmentConfig, ShardingConfig
from world_model.engines import Engine, make_engine
from world_model.model import WorldModel

GRAD_CLIP = 3.0  # below every gradient's norm: clipping is part of what is compared
ENDS = {0: 4, 2: 2, 3: 9}  # none in one row: the processes have different numbers of valid steps
UPDATES = 5
PERSISTENCE = 100  # most matrices of the tiny model are larger, its biases smaller


def new_engine(name: str, seed: int = 0, pretrained: dict[str, Any] | None = None, model: dict[str, Any] | None = None) -> Engine:
    """`name` is `local` or `deepspeed:STAGE`, with `:GATHER`, `:OFFLOAD` and `:TENSOR_PARALLEL` behind it; `pretrained` as in the
    config."""
    kind, _, stage = name.partition(":")
    torch.manual_seed(seed)
    changes = dict(model or {})
    augment = AugmentConfig(cell_dropout=changes.pop("cell_dropout", 0.0))
    config = tiny_config(grad_clip=GRAD_CLIP, weight_decay=0.1, pretrained=pretrained or {}, augment=augment, **changes)
    stage, gather, offload, ranks, *_ = [*stage.split(":"), "", "", "", ""]
    sharding = ShardingConfig(kind, int(stage or 0), PERSISTENCE, gather or "rollout", offload or "none", int(ranks or 1))
    return make_engine(sharding, lambda: WorldModel(SPEC, config), torch.device("cpu"))


def train(
    engine: Engine, first: int = 0, end: int = UPDATES, saved: dict[str, Any] | None = None, rank: int = 0, processes: int = 1
) -> dict[str, Any]:
    """Updates `first` to `end` - 1, from `saved` on where it is given: losses, gradient norms, what the last pass answered, and
    the state after them. Each process draws other random numbers."""
    model = engine.inference_copy()
    # Every run sees all batches first: symbol tables and running means are then the same in each.
    batches = [random_sequences(model, 4, 12, ENDS, seed=n) for n in range(UPDATES)]
    for n, batch in enumerate(batches):
        batch.first[1:, 0] = False  # in one row an episode begins with the sequence
        batch.before = random_sequences(model, 4, 7, seed=UPDATES + n)
    if saved is not None:
        engine.load_weights(saved["weights"])
        engine.load_optimizer_state(saved["optimizer"])
    found: dict[str, Any] = {"loss": [], "grad_norm": []}
    torch.manual_seed(rank)  # models may draw
    for n, batch in enumerate(batches[first:end], first):
        output, metrics = engine.train_step(batch.apply(lambda x: x[rank::processes]), norms=n == end - 1)
        found["loss"].append(output.loss.item())
        found["grad_norm"].append(metrics.pop("grad_norm"))
    found["norms"], context = metrics, output.context
    found["pass"] = {"z": output.z, "h": output.h, "keys": torch.stack(context.keys, 1), "values": torch.stack(context.values, 1)}
    found["pass"] |= {f"recalled/{key}": x for key, x in context.recalled.items()}
    found["pass"] |= {f"maps/{key}": state.seen for key, state in context.maps.items()}
    found["weights"] = {name: value.clone() for name, value in engine.weights().items()}
    found["optimizer"] = engine.optimizer_state()
    return found


def main(options: str) -> None:
    torch.set_num_threads(1)
    asked = json.loads(options)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    found = []
    for run in asked["runs"]:
        saved = torch.load(run["saved"], weights_only=True) if "saved" in run else None
        seed = 1 if saved else 0  # what is resumed has to bring its own weights
        engine = new_engine(run["engine"], seed, run.get("pretrained"), run.get("model"))
        found.append(train(engine, run.get("first", 0), run.get("end", UPDATES), saved, rank, processes))
    torch.save(found, Path(asked["out"]) / f"rank_{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
