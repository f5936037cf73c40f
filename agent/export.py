"""`job=export`: the stored episodes of a run, or of a folder of shards, as a Minari data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import h5py

from agent.config import RunConfig
from agent.console import print_line
from agent.pretrain.exported import write_exported
from agent.provenance import versions
from agent.sequences import Episode
from agent.shard_file import explained
from agent.shards import ShardReader, all_parts, shard_names
from envs.errors import UserError
from envs.spaces.specs import EnvSpec


def export(config: RunConfig, folder: Path) -> float:
    """Write the episodes of `export.data` into the new folder `export.to`; answers how many there are.

    Raises:
        UserError: there are none, they are damaged or imagined (unless `replay.synthetic`), or the new folder is there already.
    """
    settings = config.export
    if not settings.data or not settings.to:
        raise UserError("job=export needs export.data=FOLDER, a run folder or a folder of shards, and export.to=NEW_FOLDER")
    to = Path(settings.to)
    if to.exists():
        raise UserError(f"export.to={to} is there already: give a new folder")
    places = (Path(settings.data), Path(settings.data) / "replay")
    root = next((place for place in places if place.is_dir() and shard_names(place)), None)
    if root is None:
        raise UserError(
            f"export.data={settings.data} holds no stored episodes: it has no shard_*.h5, neither its own nor in replay/"
        )
    first = root / shard_names(root)[0]
    with explained(first), h5py.File(first, "r") as file:
        spec = EnvSpec.from_dict(json.loads(str(file.attrs["spec"])))
        provenance = json.loads(str(file.attrs.get("provenance", "{}")))

    def stored() -> Iterator[Episode]:
        return chain.from_iterable(ShardReader(place, spec, config.replay.synthetic).episodes() for place in all_parts(root))

    for _ in stored():  # what cannot be read is found before anything is written
        pass
    about = {
        "algorithm_name": "Strata",
        "description": f"Episodes of {provenance.get('environment', 'an environment')} as the agent saw and played them",
        "requirements": [f"{name}=={version}" for name, version in versions().items() if name != "python"],
        "strata_provenance": provenance,
    }
    number = write_exported(to, spec, stored(), about, config.replay.compression)
    print_line(f"Data set: {to}, {number:,} episodes; read it with minari.MinariDataset('{to / 'data'}') or pretrain.data={to}")
    return float(number)
