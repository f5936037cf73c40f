"""The whole run's configuration: every group together, typed. Hydra only fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.loggers import LoggerConfig
from curriculum.config import CurriculumConfig
from envs.config import EnvConfig
from hierarchy.config import HierarchyConfig
from world_model.config import ModelConfig, ShardingConfig

BEFORE: dict[str, Any] = {"model.maps": False, "hierarchy.discovery": 0.0, "train.burn_in": 0}
"""What a run did before there was a key, where the key's default is another: of configs saved by an earlier version."""


@dataclass
class JobConfig:
    """What `run.py` does."""

    name: str = "train"  # train | pretrain | evaluate | dream | check | compare | plan | audit | export


@dataclass
class ReplayConfig:
    """What is remembered and how it is sampled."""

    capacity: int = 200_000  # steps kept in memory
    recent: float = 0.25  # share of sequences from the newest `recent_window` steps
    rewarded: float = 0.25  # share of sequences that contain a reward
    rewarded_cap: float = 0.05  # at most this share per rewarded step seen, while there are few
    recent_window: int = 2000
    history: float = 0.0  # share of sequences from episodes that are on disk alone
    cache: int = 20_000  # steps of these that are kept decoded
    prefetch: int = 4  # updates that they are read ahead of
    episodes_per_shard: int = 100
    compression: str = "gzip"  # none | gzip | lzf
    remote: str | None = None  # a URL that fsspec knows: every shard is copied there
    licence: str | None = None  # under which stored episodes may be used
    synthetic: bool = False  # learn from stored episodes that were imagined, too


@dataclass
class TrainConfig:
    """The training loop."""

    env_steps: int = 40_000
    stop_at_mastery: bool = True  # stop when the hardest task is mastered
    random_steps: int = 1024  # uniformly random actions before anything is learned
    warmup_updates: int = 100  # of the model alone, before the policy learns
    update_every_first: float = 16.0  # env steps per update while no task is solved
    update_every: float = 32.0  # env steps per update once the last 30 episodes of some task reach `mastery`
    mastery: float = 0.9  # training success over the last 100 episodes at which a task counts as mastered
    batch: int = 16  # B, sequences per update
    length: int = 32  # T, steps per sequence
    burn_in: int = 64  # steps before each that fill its maps
    log_every: int = 500  # env steps
    checkpoint_every: int = 5000  # env steps
    keep_checkpoints: int = 2
    keep_best: bool = True  # ... and the best one
    validation: float = 0.05  # share of episodes kept out of training
    validation_after: int = 10_000  # env steps before which none is
    look_every: int = 25  # updates between looks at the held-out loss, the gradients and the codes; 0: never
    pretrained: str | None = None  # a run folder or checkpoint whose world model a new run starts from
    threads: int = 0  # torch threads on the CPU; 0: as many as there are cores


@dataclass
class ActingConfig:
    """The `acting` config group: who steps the environments."""

    mode: str = "sync"  # sync | async: the learner between updates, or actors meanwhile
    actors: int = 1  # processes
    publish_every: int = 4  # updates
    ahead: int = 8  # steps of all environments that actors may be ahead of the learner
    device: str = "cpu"
    threads: int = 1  # torch threads of each actor
    backend: str = "processes"  # processes | ray: of this machine, or of a Ray cluster's machines
    address: str | None = None  # of a Ray cluster; None: one is started here
    gpus: float = 0.0  # that each of Ray's actors asks for


@dataclass
class PretrainConfig:
    """The world model alone, on stored episodes."""

    data: Any = None  # a folder of stored episodes, or a list of folders
    updates: int = 5000
    log_every: int = 50  # updates between log lines and looks at held-out episodes
    checkpoint_every: int = 1000  # updates


@dataclass
class EvalConfig:
    """Evaluation on layouts that training never sees."""

    episodes: int = 100  # per task at the end
    num_envs: int | None = None  # environments side by side; as many as in training by default
    max_episode_steps: int = 30_000  # after which an episode is cut off
    policy: str = "sample"  # sample | greedy: the reported figure; the other is reported beside it
    split: str = "test"  # test | validation
    seed: int | None = None  # which held-out layouts are played; the run's by default
    every: int = 0  # env steps between evaluations during training; 0: none
    every_episodes: int = 20  # ... of each task
    also: list[str] = field(default_factory=list)  # of the suite, or points of the box: evaluated and never trained on
    video: bool = True  # film one held-out episode of each task
    video_frames: int = 300  # of an episode that are drawn at most
    calibration: int = 1000  # steps that predicted rewards, ends and values are compared on with what came; 0: none
    shuffle: list[str] = field(default_factory=list)  # modalities to show as another episode's in one more evaluation
    random: bool = False  # report uniformly random actions beside
    goals: list[str] | None = None  # shuffled, zeroed: one more evaluation each under such goals; None: all, if there are goals
    goal_episodes: int = 5  # of each task on which a manager's goals are compared with what was reached; as many with drawn goals


@dataclass
class DreamConfig:
    """Imagined futures beside the real one, as pictures and films."""

    horizon: int = 12  # steps imagined
    episodes: int = 2  # of each task that job=dream draws; the end of training draws one of the hardest
    samples: int = 3  # futures imagined from each start
    context: int = 0  # steps before the start that the model is shown; 0: all that attention reaches back to
    start: str = "end"  # end | random: dreams that reach the episode's end, or that begin anywhere
    film: bool = True  # a GIF beside each PNG
    fps: float = 2.0  # of the films
    dataset: str | None = None  # a new folder to write imagined episodes into
    dataset_episodes: int = 100


@dataclass
class CompareConfig:
    """Curricula compared, from the folders of their runs."""

    runs: Any = None  # a folder of runs, or a list of folders
    baseline: str = "uniform"  # the curriculum that the others are measured against
    threshold: float = 0.9  # evaluation success from which a task counts as mastered
    resamples: int = 2000  # of the bootstrap
    confidence: float = 0.95  # of its intervals


@dataclass
class PlanConfig:
    """What a run needs on how many processes."""

    world_sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    memory_gib: float = 24.0  # of one GPU
    json: str | None = None  # a file for the plan as JSON; -: print that in the place of the table


@dataclass
class AuditConfig:
    """Stored episodes, looked through."""

    data: Any = None  # a folder, or a list of folders
    layouts: int = 100  # episodes of a run that are begun again; 0: none


@dataclass
class ExportConfig:
    """Stored episodes as a Minari data set."""

    data: str | None = None  # a run folder or a folder of shards
    to: str | None = None  # a new folder


@dataclass
class RunConfig:
    """Everything a run depends on."""

    seed: int = 1
    device: str = "auto"
    resume: str | None = None
    checkpoint: str | None = None
    job: JobConfig = field(default_factory=JobConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    hierarchy: HierarchyConfig = field(default_factory=HierarchyConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    acting: ActingConfig = field(default_factory=ActingConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
