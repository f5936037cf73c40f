"""Strata's entry point: composes a run from configs/ and does one job. `python run.py --help` says how."""

from __future__ import annotations

import math
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.config import RunConfig
from envs.errors import UserError

ConfigStore.instance().store(name="strata", node=RunConfig)


DICTIONARIES = ("env.kwargs", "env.box", "env.modalities", "env.rewards", "model.pretrained", "curriculum.kwargs")
FREE = tuple(f"{key}{sign}" for key in DICTIONARIES for sign in ".=")  # dictionaries that take any key
RUNS = ("runs=", "compare.runs=")
OBSERVATION = re.compile(r"env\.modalities\.(.*)=([\w:]+)", re.DOTALL)


def free_arguments(arguments: list[str]) -> list[str]:
    """`env.kwargs.size=6` as Hydra wants it where the key is not in the config yet: `++env.kwargs.size=6`.

    Observations may have keys that Hydra does not take (spaces, slashes, other alphabets): these are percent-encoded.
    """
    return [f"++{_plain_key(argument)}" if argument.startswith(FREE) else argument for argument in arguments]


def _plain_key(argument: str) -> str:
    match = OBSERVATION.fullmatch(argument)
    if match is None or re.fullmatch(r"\w+(\.\w+)*", match[1], re.ASCII):
        return argument
    return f"env.modalities={{{quote(match[1], safe='')}: {match[2]}}}"


def short_arguments(arguments: list[str]) -> list[str]:
    """`runs=FOLDER` is short for `compare.runs=FOLDER`; a single folder is quoted: those of sweeps have commas in their names."""
    return [_runs(argument.partition("=")[2]) if argument.startswith(RUNS) else argument for argument in arguments]


def _runs(value: str) -> str:
    return "compare.runs=" + (value if value.startswith(("[", "'", '"')) else repr(value))


def recipe_arguments(arguments: list[str]) -> list[str]:
    """`env.id=`, or `env.suite=module:function`, alone means the recipe `any`: what suits the default suite must not be left to
    somebody's own environment. Said beside it: behind a flag such as `--help` nothing more is taken."""
    given = [argument.lstrip("+~").partition("=")[::2] for argument in arguments]
    own = [i for i, (key, value) in enumerate(given, 1) if key == "env.id" or (key == "env.suite" and ":" in value)]
    alone = own and not {key for key, _ in given} & {"env", "experiment", "resume", "checkpoint"}
    return [*arguments[: own[0]], "experiment=any", *arguments[own[0] :]] if alone else arguments


def resumed_arguments(arguments: list[str]) -> list[str]:
    """A resumed run writes into its own folder.

    Raises:
        UserError: if the folder holds no run.
    """
    given = [i for i, argument in enumerate(arguments, 1) if argument.startswith("resume=")]
    named = arguments[given[-1] - 1].partition("=")[2].strip("'\"") if given else ""
    if named in ("", "null"):
        return arguments
    folder = Path(named)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder} is not a run folder: it has no config.yaml")
    return [*arguments[: given[-1]], f"hydra.run.dir={str(folder)!r}", *arguments[given[-1] :]]


def resumed_config(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config that a run was started with, changed by what is given now. An earlier version may have started it.

    Raises:
        UserError: if a whole group is exchanged: that would be another run.
    """
    from agent.loading import of_this_version

    groups = {"job", "env", "model", "hierarchy", "curriculum", "sharding", "acting", "logger", "experiment"}
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        if name in groups:
            raise UserError(
                f"{override} cannot be changed when resuming; change single keys ({name}.KEY=VALUE) or start a new run"
            )
    path = Path(config.resume) / "config.yaml"
    try:
        saved = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or start a new run") from error
    if not isinstance(saved, DictConfig):
        raise UserError(f"{path} cannot be read (it holds no keys); restore it, or start a new run")
    return _changed(of_this_version(OmegaConf.to_container(saved), str(path)), overrides)


def agents_config(config: DictConfig, overrides: list[str]) -> DictConfig:
    """This config with the environment, model, hierarchy and way of evaluation that the agent of `checkpoint=` was trained
    with, but for what is given now: a whole group (`env=...`) or single keys of one.

    Raises:
        UserError: if there is no such checkpoint, or a whole recipe is given.
    """
    from agent.checkpoint import load_meta, resolve
    from agent.loading import saved_groups

    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    if "experiment" in given:
        raise UserError(f"job={config.job.name} takes no experiment=: the agent brings its own env, model and hierarchy")
    path = resolve(config.checkpoint)
    groups = tuple(group for group in ("env", "model", "hierarchy", "eval") if group not in given)
    whole = OmegaConf.to_container(config)
    assert isinstance(whole, dict)
    own = saved_groups(load_meta(path), path, groups)
    return _changed({**whole, **own}, [override for override in overrides if override.lstrip("+").partition(".")[0] in groups])


def _changed(saved: Any, overrides: list[str]) -> DictConfig:
    changed = OmegaConf.from_dotlist([override.lstrip("+") for override in overrides if "=" in override])
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), saved, changed)
    assert isinstance(merged, DictConfig)
    return merged


failed: list[Path] = []  # folders of a sweep's runs that ended in an error


@hydra.main(version_base=None, config_path="configs", config_name="config")
def compose(config: DictConfig) -> float:
    """What Hydra calls, once for every run. Bad input ends here: Hydra would put lines of its own round the sentence.

    In a sweep it ends that run alone, whose objective is NaN; the others are still to come.
    """
    try:
        return run(config)
    except (UserError, OmegaConfBaseException) as error:
        code = refuse(error)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(code)
        failed.append(Path(HydraConfig.get().runtime.output_dir))
        return math.nan


def run(config: DictConfig) -> float:
    """One job of one run; answers its objective."""
    from agent.jobs import is_finished, objective_of, run_job
    from world_model.engines.joining import launched_processes

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task)
    sweep = settings.mode == RunMode.MULTIRUN
    if sweep and config.resume:  # every one of its runs would say so
        way_out = "to go on with a sweep, give its command again with its hydra.sweep.dir"
        sys.exit(refuse(UserError(f"resume= is for single runs; {way_out}")))
    if sweep and is_finished(folder):
        print(f"{folder} is finished already: skipped")
        return objective_of(folder)
    if sweep and (folder / "config.yaml").is_file():
        config.resume = str(folder)
    elif config.resume:
        config = resumed_config(config, overrides)
    elif config.job.name != "train" and config.checkpoint:
        config = agents_config(config, overrides)
    # Merged into the schema once more: `+train.no_such_key=1` gets past Hydra's own check.
    whole = OmegaConf.to_container(config)
    typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), whole))
    assert isinstance(typed, RunConfig)
    if launched_processes() > 1:
        folder = common_folder(typed, folder, sweep)
    objective = run_job(typed, folder)
    if typed.job.name == "audit" and objective:
        sys.exit(1)
    if sweep and typed.job.name == "train" and not is_finished(folder):
        print("The sweep ends here; give the same command again, with its hydra.sweep.dir, to go on with it")
        sys.exit(0)
    return objective


def common_folder(config: RunConfig, folder: Path, sweep: bool) -> Path:
    """The run folder of rank 0, for all processes that a launcher started: each has made one by its own clock.

    Raises:
        UserError: what is asked for is done by one process.
    """
    from agent.build import choose_device
    from agent.jobs import lost_processes
    from agent.processes import Processes

    if sweep or config.job.name != "train":
        what = "a sweep" if sweep else f"job={config.job.name}"
        raise UserError(f"{what} is done by one process: start it without torchrun (WORLD_SIZE is above 1)")
    processes = Processes.join(choose_device(config.device))
    with lost_processes(folder, processes):
        common = Path(processes.broadcast(str(folder)))
    if common != folder:
        with suppress(OSError):  # it holds something, or another process that made the same one removed it
            folder.rmdir()
    return common


NOISE = re.compile(
    r"object_type=[^\n]*|reference_type=[^\n]*|To append to your config use \S+|Set the environment variable.*"
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
    failed.clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here whole, to be told by us
    try:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # environments, suites and wrappers of the folder that the command is given in
        sys.argv = [sys.argv[0], *resumed_arguments(free_arguments(short_arguments(recipe_arguments(sys.argv[1:]))))]
        compose()
        if failed:
            names = ", ".join(folder.name for folder in failed)
            raise UserError(f"these runs of the sweep failed, see above: {names}; give the same command to try them again")
    except (UserError, HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `python run.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
