"""Strata's entry point: composes a run from configs/ and does one job. `python run.py --help` says how."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.config import RunConfig
from envs.errors import UserError

ConfigStore.instance().store(name="strata", node=RunConfig)


def resumed_arguments(arguments: list[str]) -> list[str]:
    """A resumed run writes into its own folder, and keeps the record of how it was first started.

    Raises:
        UserError: if the folder holds no run.
    """
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not folders or folders[-1] in ("", "null"):
        return arguments
    folder = Path(folders[-1])
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder} is not a run folder: it has no config.yaml")
    return [*arguments, f"hydra.run.dir={str(folder)!r}", "hydra.output_subdir=null"]


def resumed_config(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config that a run was started with, changed by what is given now.

    Raises:
        UserError: if a whole group is exchanged: that would be another run.
    """
    groups = {"job", "env", "model", "hierarchy", "curriculum", "sharding", "logger", "experiment"}
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        if name in groups:
            raise UserError(
                f"{override} cannot be changed when resuming; change single keys ({name}.KEY=VALUE) or start a new run"
            )
    saved = OmegaConf.load(Path(config.resume) / "config.yaml")
    changed = [override for override in overrides if "=" in override]
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), saved, OmegaConf.from_dotlist(changed))
    assert isinstance(merged, DictConfig)
    return merged


@hydra.main(version_base=None, config_path="configs", config_name="config")
def compose(config: DictConfig) -> float:
    """What Hydra calls, once for every run. Bad input ends here: Hydra would put lines of its own round the sentence."""
    try:
        return run(config)
    except (UserError, OmegaConfBaseException) as error:
        sys.exit(refuse(error))


def run(config: DictConfig) -> float:
    """One job of one run; answers its objective."""
    from agent.jobs import objective_of, run_job, write_text

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    if settings.mode == RunMode.MULTIRUN:
        if (folder / "summary.json").is_file():
            print(f"{folder} is finished already: skipped")
            return objective_of(folder)
        if (folder / "checkpoints").is_dir():
            config.resume = str(folder)
    elif config.resume:
        config = resumed_config(config, list(settings.overrides.task))
    typed: Any = OmegaConf.to_object(config)
    assert isinstance(typed, RunConfig)
    if not config.resume and typed.job.name == "train" and (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run already: go on with it by resume={folder}, or choose another hydra.run.dir")
    if not config.resume:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    return run_job(typed, folder)


NOISE = re.compile(
    r"object_type=\S+|reference_type=\S+|To append to your config use \S+|Set the environment variable.*"
    r"|See https?://\S+|Config search path:.*",
    re.DOTALL,
)


def sentence(error: BaseException) -> str:
    """What went wrong, as one line: Hydra and OmegaConf spread theirs over several, with the cause inside."""
    text, cause = str(error), error.__cause__
    if isinstance(cause, HydraException | OmegaConfBaseException) and str(cause) not in text:
        text = f"{text}: {cause}"
    text = text.replace("full_key:", "at key")
    lines = [line.strip() for line in NOISE.sub("", text).splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line))


def refuse(error: BaseException) -> int:
    """Tell bad input in one sentence; answers the exit code."""
    print(f"error: {sentence(error)}", file=sys.stderr)
    return 2


def main() -> None:
    """The console command."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here whole, to be told by us
    try:
        sys.argv = [sys.argv[0], *resumed_arguments(sys.argv[1:])]
        compose()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error))
    except BrokenPipeError:  # `python run.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
