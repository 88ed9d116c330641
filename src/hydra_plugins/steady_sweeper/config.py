"""Every key of `hydra/sweeper=steady`, with its meaning and default; first those of hydra-optuna-sweeper.

Read at each start of any Hydra app: no heavy imports.
"""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, StringNode, ValidationError

STEADY = "hydra_plugins.steady_sweeper.steady_sweeper.SteadySweeper"
STOCK = "hydra_plugins.hydra_optuna_sweeper."


class Target(StringNode):
    """`hydra.sweeper._target_`; refuses the class of the stock plugin, which would be handed keys it does not know."""

    def _validate_and_convert_impl(self, value: Any) -> str:
        if isinstance(value, str) and value.startswith(STOCK):
            raise ValidationError(
                f"hydra/sweeper is steady, but `_target_: {value}` below hydra.sweeper names the class of another one. "
                "Take out that line: hydra/sweeper=steady sets _target_ itself."
            )
        return super()._validate_and_convert_impl(value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Target":
        copy = Target()
        self._deepcopy_impl(copy, memo)
        return copy


@dataclass
class DefaultSamplerConf:
    """TPE with Optuna 5's own defaults: multivariate, aware of trials that run. The stock plugin's `tpe` is neither."""

    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    n_startup_trials: int = 10
    n_ei_candidates: int = 24
    # The others that the stock plugin's `tpe` knows; null: as Optuna has it.
    multivariate: bool | None = None
    group: bool = False
    constant_liar: bool = True
    consider_prior: bool | None = None
    prior_weight: float | None = None
    consider_magic_clip: bool | None = None
    consider_endpoints: bool | None = None
    warn_independent_sampling: bool | None = None
    constraints_func: Any = None


# What may be chosen by hydra/sweeper/pruner=NAME, with the arguments as Optuna has them where it has a default.
STEPS = {"n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1}
PRUNERS: dict[str, dict[str, Any]] = {
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, **STEPS},
    "percentile": {"_target_": "optuna.pruners.PercentilePruner", "percentile": 50.0, "n_startup_trials": 5, **STEPS},
    "halving": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": "auto", "reduction_factor": 4,
        "min_early_stopping_rate": 0, "bootstrap_count": 0,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner", "min_resource": 1, "max_resource": "auto", "reduction_factor": 3,
        "bootstrap_count": 0,
    },
    "pareto": {"_target_": "steady.ParetoPruner", "keep": 0.5, "n_startup_trials": 5, "n_warmup_steps": 0},
}  # fmt: skip

# `hydra.launcher` as hydra-ray-launcher has it: arguments of ray.init and of ray.remote, to be added with a plus.
RAY: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "ray": {"init": {"address": None}, "remote": {}},
}
# `hydra.launcher` for jobs of SLURM: those keys of hydra-submitit-launcher's submitit_slurm that mean something here,
# with our defaults. What is null is left to the cluster.
SLURM: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "name": None,  # of jobs in the queue; null: the study's
    "timeout_min": 240,  # of a job; a trial that needs more goes on in the next
    "signal_delay_s": 120,  # before that, for the epoch to end and its checkpoint to be written
    "cpus_per_task": 4,
    "mem_gb": None,
    "gres": None,  # gpu:1
    "gpus_per_node": None,
    "gpus_per_task": None,
    "cpus_per_gpu": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "partition": None,
    "qos": None,
    "account": None,
    "constraint": None,
    "exclude": None,
    "comment": None,
    "setup": None,  # lines of shell before the command, [module load cuda]
    "python": None,  # null: as the controller's
    "additional_parameters": {},  # other options of sbatch, {mail-user: me@host}
}


@dataclass
class SteadySweeperConf:
    """`hydra.sweeper`, when `hydra/sweeper=steady`."""

    _target_: Any = field(default_factory=lambda: Target(STEADY))
    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"sampler": "default"}, {"pruner": "none"}])

    # As in hydra-optuna-sweeper.
    sampler: Any = MISSING  # the option of hydra/sweeper/sampler; default, and null: Optuna's TPE
    direction: Any = "minimize"  # or a list, one per objective
    storage: Any = None  # sqlite:///, journal:///, postgresql://, mysql://, grpc://; null: study.db in `record`
    study_name: str | None = None  # null: the sweep's own folder holds its study
    n_trials: int = 20  # of the study in all, however often it is started
    # Slots. auto: one per GPU of this machine, without one as many as its cores and memory allow; so give the number of
    # jobs where another launcher runs them elsewhere.
    n_jobs: Any = "auto"
    # Among the last n_jobs trials; above it the sweep stops. 1: however many fail. null: see max_same_failures.
    max_failure_rate: float | None = None
    params: dict[str, Any] | None = None  # the space: {parameter: "choice(a, b)" or "interval(0, 1)"}
    custom_search_space: str | None = None  # dotted path of a function (config, trial) that suggests more

    # The space.
    conditions: dict[str, str] = field(default_factory=dict)  # parameter: "other=value" or "other=[a,b]"
    # Bounds on values that trials note (steady.reporting), {weights: "<= 2e6", fps: ">= 10"}: samplers learn from them,
    # and a trial that violates one is never the best. null: none.
    constraints: Any = None
    # Studies beside this one whose trials the sampler begins with: names, or auto, all whose trials ran alike. The best
    # are tried first, and none is counted. null: none.
    warm_start: Any = None
    baseline: bool = False  # try the configuration as it stands first, if the space has it
    # Configurations to try first, [{parameter: value, …}, …]; checked before anything is written. They count as trials:
    # those for which `n_trials` has no room wait until it is raised.
    enqueue: Any = None
    duplicates: str = "resample"  # resample | reuse | allow: a configuration that was already tried

    # Pruning, by the scores that trials report (steady.reporting).
    # An option of hydra/sweeper/pruner (none, median, percentile, halving, hyperband, pareto), or a node of any Optuna
    # pruner or of steady.ParetoPruner; none, and null: nothing is pruned.
    pruner: Any = None
    prune_metric: Any = None  # name, or several for ParetoPruner
    prune_direction: Any = "minimize"  # or one per metric
    # In place of a pruner, {eta: 3, rungs: [1, 3, 9]}: a trial that reports at a rung, a step of steady.reporting, is
    # paused there, and goes on from its checkpoint once it is among the best 1/eta of all that came to that rung. The
    # last rung is the whole budget. null: none.
    promotion: Any = None

    # Bounds and failures.
    # Seconds after which this start begins no further trial; with `promotion`, in which one that begins can end. With
    # `confirm`, all of it in all: the search ends early enough for the confirmation.
    timeout: float | None = None
    retries: int = 1  # of a trial whose process was lost
    # Seconds after which a trial is ended: a number, in all; or {progress: 600, total: 7200}, without a sign of
    # progress (a line in a log of its folder, a report) and in all. It failed; its log has the stacks of where it hung.
    # auto: 30 minutes without progress; 10 times trial_minutes and an hour in all.
    trial_timeout: Any = None
    # In a row; then the sweep stops and shows the failure. null: 3, or no limit where max_failure_rate is 1.
    max_same_failures: int | None = None
    storage_patience: float = 600.0  # seconds that a server of the storage may be away; trials go on training meanwhile
    lease: float = 60.0  # seconds without a sign of life after which a controller on another machine is dead

    # Processes.
    # That a job of a cluster serves, one after the other, before it ends. null: 1 with SLURM, any number with Ray.
    trials_per_job: int | None = None
    preload: list[str] = field(default_factory=list)  # modules imported once, before trials are forked
    # Dotted path of a task run once before the first trial; returns facts to freeze. One with a parameter `examples`
    # is given configurations that trials will have, see steady.propose.covering.
    preflight: str | None = None
    gpus: Any = "auto"  # auto, a number, or a list of ids
    gpus_per_slot: float = 1.0  # 0.5: two slots share a GPU
    # Draw the next trial, and get it ready, before a slot is free: the slot waits less, and the draw knows one result
    # less. auto: while trials take less than 20 s. It counts as running.
    draw_ahead: Any = "auto"

    # What Optuna's dashboard shows of a trial: patterns within its folder; the newest match of each is attached to it,
    # about once a minute and at its end, and kept in `record`/artifacts.
    artifacts: list[str] = field(default_factory=list)

    # Dotted path of an object that reads scores beside the objectives out of run folders, for the leaderboard and the
    # tables, see steady.study.results.ExtraScores. null: none.
    extra_scores: str | None = None

    # Dotted path of a function, or a list of several, that is called when this start of the sweep has ended, unless it
    # was interrupted, with study, folder (of the runs), study_folder and config, by these names.
    on_end: Any = None
    # A line that is printed when this start of the sweep has ended: what to do with the study. null: how to look at it.
    next_step: str | None = None

    # Resuming.
    # What may differ from the first start; failures: trials that failed before any finished are not to count.
    allow_change: list[str] = field(default_factory=list)
    contract_ignore: list[str] = field(default_factory=list)  # keys of the configuration that are never compared

    # The winner.
    confirm: Any = None  # {top: 3, seeds: 3}: train the best again under other seeds

    dry_run: bool = False  # print the space, first proposals and the cost; run nothing
    # Minutes that a trial trains: for dry_run and timeout before any has finished, and trial_timeout=auto.
    trial_minutes: Any = None
    objective: Any = None  # names of the objectives; null: value, or value 0, value 1, …
    record: str | None = None  # folder of study.db and leaderboard.csv; null: sweeps/<study_name>


_store = ConfigStore.instance()
_store.store(group="hydra/sweeper/sampler", name="default", node=DefaultSamplerConf, provider="steady")
_store.store(
    group="hydra/sweeper/pruner", name="none", node={"pruner": None}, package="hydra.sweeper", provider="steady"
)
for _name, _node in PRUNERS.items():
    _store.store(group="hydra/sweeper/pruner", name=_name, node=_node, provider="steady")
# Under two names: an app may have a hydra/sweeper/steady.yaml of its own that starts from the schema.
for _name in ("steady", "steady_schema"):
    _store.store(group="hydra/sweeper", name=_name, node=SteadySweeperConf, provider="steady")
_store.store(group="hydra/launcher", name="slurm", node=SLURM, provider="steady")  # submitit_slurm is its package's
# steady sends its jobs to Ray itself, so that hydra/launcher=ray needs no more than Ray.
if find_spec("hydra_plugins.hydra_ray_launcher") is None:
    _store.store(group="hydra/launcher", name="ray", node=RAY, provider="steady")
