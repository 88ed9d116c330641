import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from catsweep import schema
from catsweep.commands import guard
from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate

NOTHING = OmegaConf.create({})


@guard
def refuse(cfg: DictConfig) -> None:
    """Docstring of refuse."""
    raise ConfigError("expected a VAE's loss, got hinge: choose mse")


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what a test sets as Hydra's mode."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def set_mode(mode: RunMode) -> None:
    cfg: Any = OmegaConf.create({"hydra": {"mode": mode}})
    HydraConfig.instance().cfg = cfg


def test_configuration_and_result_pass_through() -> None:
    @guard
    def double(cfg: DictConfig) -> int:
        return 2 * cfg.n

    assert double(OmegaConf.create({"n": 3})) == 6


@pytest.mark.usefixtures("mode")
def test_trust_lasts_as_long_as_the_task() -> None:
    node = {"_target_": "fractions.Fraction", "_args_": [3]}

    @guard
    def build(cfg: DictConfig) -> object:
        return instantiate(node)

    struct = OmegaConf.create({"trust": ["fractions.*"]})
    OmegaConf.set_struct(struct, True)
    assert build(struct) == 3
    distrustful: dict[str, Any]
    for distrustful in ({"trust": []}, {"trust": None}, {}):
        struct = OmegaConf.create(distrustful)
        OmegaConf.set_struct(struct, True)  # as Hydra hands it over
        with pytest.raises(SystemExit):
            build(struct)


def test_identity_of_the_task_is_kept_for_hydra() -> None:
    # Hydra finds the config folder beside the file that `__wrapped__` was defined in.
    assert refuse.__name__ == "refuse"
    assert refuse.__doc__ == "Docstring of refuse."
    assert refuse.__wrapped__.__module__ == __name__  # type: ignore[attr-defined]


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("hydra_mode", [None, RunMode.RUN])
def test_expected_error_is_one_message_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], hydra_mode: RunMode | None
) -> None:
    HydraConfig.instance().cfg = None
    if hydra_mode is not None:
        set_mode(hydra_mode)
    with pytest.raises(SystemExit) as caught:
        refuse(NOTHING)
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert captured.err == "ConfigError: expected a VAE's loss, got hinge: choose mse\n"
    assert captured.out == ""


@pytest.mark.usefixtures("mode")
def test_sweeper_sees_the_error_so_that_only_the_trial_fails() -> None:
    set_mode(RunMode.MULTIRUN)
    with pytest.raises(ConfigError):
        refuse(NOTHING)


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("value", "raised"), [("1", ConfigError), ("0", SystemExit), ("", SystemExit)])
def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, value: str, raised: type[BaseException]) -> None:
    HydraConfig.instance().cfg = None
    monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    with pytest.raises(raised):
        refuse(NOTHING)


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3), GeneratorExit()])
def test_bugs_are_not_dressed_up(error: BaseException) -> None:
    @guard
    def crash(cfg: DictConfig) -> None:
        raise error

    with pytest.raises(type(error)):
        crash(NOTHING)


@pytest.mark.security
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("n=${seed_of_nobody}", "n: Interpolation key 'seed_of_nobody' not found"),
        ("n=${columns}", "While dereferencing interpolation '${columns}': n must be a whole number from 1"),
        ("n=???", "n must be a whole number from 1 to 1000000; got ??? (nothing)."),
        ("~n", "Key 'n' is not in struct (n); --cfg job shows every key with its value."),
    ],
)
def test_what_hydra_cannot_look_at_is_told_before_the_task(
    capsys: pytest.CaptureFixture[str], root: Path, override: str, said: str
) -> None:
    HydraConfig.instance().cfg = None
    began = []

    @guard
    def task(cfg: DictConfig) -> None:
        began.append(cfg.n)

    with initialize_config_dir(str(root / "conf")):
        cfg = compose("generate", [override])
    with pytest.raises(SystemExit) as ended:
        task(cfg)
    assert (ended.value.code, began) == (1, [])
    assert capsys.readouterr().err.startswith(f"ConfigError: {said}")


@pytest.mark.usefixtures("mode")
def test_an_interruption_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @guard
    def interrupted(cfg: DictConfig) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        interrupted(NOTHING)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    set_mode(RunMode.MULTIRUN)  # it ends the whole sweep, which says so
    with pytest.raises(KeyboardInterrupt):
        interrupted(NOTHING)


@pytest.mark.parametrize("name", ["generate", "best_model", "export"])
def test_small_commands_leave_no_files_of_hydra_behind(root: Path, name: str) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose(name, return_hydra_config=True)
    assert cfg.hydra.output_subdir is None
    assert cfg.hydra.run.dir == "."
    assert "file" not in cfg.hydra.job_logging.handlers
    assert f"conf/{name}.yaml" in cfg.hydra.help.template


def test_nothing_heavy_is_imported_before_the_command_line_is_read(root: Path) -> None:
    source = root / "src"
    commands = [path.stem for path in source.glob("*.py")]
    assert {"train", "generate", "best_model", "export"} <= set(commands)
    heavy = "{'torch', 'pytorch_lightning', 'wandb', 'optuna', 'numpy'}"
    code = f"import sys, {', '.join(commands)}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert found.stdout.strip() == "[]"


def test_a_letter_that_the_terminal_lacks_ends_no_command(root: Path) -> None:
    program = "import catsweep.commands; print('val/fid \\u2193, M\\u00e4usel')"
    environment = {"PYTHONPATH": "src", "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("val/fid ?, M?usel\n", 0), done.stderr


@pytest.mark.security
@pytest.mark.parametrize("name", [1, 1.5, "*", "a.**", "*.a", "a b", ".a", "a..b", "../a", " "], ids=repr)
def test_what_is_no_name_is_refused_in_a_list_of_trusted_packages(root: Path, name: object) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose("train", ["trust=[a.b, mypackage.*]"])
        assert list(cfg.trust) == ["a.b", "mypackage.*"]
        assert (said := schema.refusal(cfg, "trust", [name]))
        assert "each a dotted name" in said


@pytest.mark.security
def test_lists_hold_what_their_kind_says(root: Path) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose("train", ["objective=[1]", "rungs=['0.5']"])
    assert list(cfg.objective) == ["1"]
    assert list(cfg.rungs) == [0.5]
