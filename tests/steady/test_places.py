import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.disk import largest_file

from catsweep.commands import guard
from steady import places
from steady.exceptions import ConfigError, PlaceError, SteadyError

pytestmark = pytest.mark.security

CFG = OmegaConf.create(
    {"out": "outputs/exports", "data": {"root": "data/ready", "n": 3}, "cache": "data/ready/deep", "same": "${out}"}
)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every write that is to be on the disk fail."""

    def full(number: int = errno.ENOSPC) -> None:
        def fsync(_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    return full


@pytest.mark.parametrize("number", [*places.WRONG])
def test_each_trouble_names_the_place_what_is_wrong_and_the_key(number: int) -> None:
    said = places.explain(OSError(number, os.strerror(number), "outputs/exports/study-1/x"), CFG)
    assert said is not None
    assert said.startswith("outputs/exports/study-1/x cannot be ")
    assert places.WRONG[number][0] in said
    assert said.endswith(f"{places.WRONG[number][1]}, or choose another place: out=DIR.")


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("outputs/exports", "out=DIR"),
        (os.path.abspath("outputs/exports/deep/er"), "out=DIR"),
        ("data/ready/x", "data.root=DIR"),
        ("data/ready/deep/x", "cache=DIR"),  # the innermost
        ("data/ready2/x", None),
        ("elsewhere", None),
    ],
)
def test_the_key_is_the_one_that_sets_the_place(place: str, key: str | None) -> None:
    said = places.explain(OSError(errno.ENOSPC, "full", place), CFG)
    assert said is not None
    assert (said.rpartition(": ")[2] == f"{key}.") is (key is not None)
    assert "=DIR" not in said or key


def test_of_a_rename_it_is_the_target() -> None:
    said = places.explain(OSError(errno.ENOSPC, "full", "/tmp/a", None, "outputs/exports/b"), CFG)
    assert said is not None
    assert said.startswith("outputs/exports/b cannot be written: no space is left there. Make room")


@pytest.mark.parametrize(
    "bug",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "outputs/exports/x"),
        PermissionError(errno.EPERM, "Operation not permitted"),  # of a process
        OSError(errno.EADDRINUSE, "Address already in use"),
        OSError(errno.EINVAL, "Invalid argument", "x"),
        OSError("no number"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ValueError("a bug"),
        RuntimeError("(os error 2)"),
        KeyError("File"),
    ],
)
def test_what_is_no_trouble_with_a_place_stays_a_bug(bug: Exception) -> None:
    assert places.explain(bug, CFG) is None
    with pytest.raises(type(bug)), places.translated_errors(CFG):
        raise bug


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_file_system_that_lets_nobody_make_a_folder_is_a_place_that_cannot_be_used() -> None:
    with pytest.raises(PlaceError, match=r"^/proc/\S+ cannot be used: it is not permitted"):
        places.check(Path("/proc/nothing/here"))


def test_a_folder_that_was_to_be_new_stays_a_bug(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError) as caught:
        tmp_path.mkdir()
    assert places.explain(caught.value) is None


def test_an_error_while_another_was_handled_stays_a_bug() -> None:
    bug = KeyError("a bug")
    bug.__context__ = PermissionError(errno.EACCES, "Permission denied", "x")
    assert places.explain(bug) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "no space is left"),
        ("I/O error: Disk quota exceeded (os error 122)", "quota"),
        ("unable to write to file </torch_1>: No space left on device (28)", "no space is left"),
        ("File too large (os error 27)", "larger than a file may be"),
    ],
)
def test_libraries_that_are_not_python_are_understood(text: str, what: str) -> None:
    assert what in str(places.explain(RuntimeError(text), CFG))


def test_a_loop_that_pathlib_found_is_one() -> None:
    said = str(places.explain(RuntimeError("Symlink loop from 'outputs/exports/a'\nfull_key: logger"), CFG))
    assert said.startswith("outputs/exports/a cannot be used: its links lead in a circle")


def test_what_caused_it_counts() -> None:
    wrapped = ValueError("Unable to configure handler 'file'")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied", "outputs/exports/train.log")
    assert "outputs/exports/train.log cannot be used: permission is denied" in str(places.explain(wrapped, CFG))
    later = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    later.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert places.is_full(later)


def test_too_many_open_files_say_how_many_there_may_be() -> None:
    said = str(places.explain(OSError(errno.EMFILE, "Too many open files", "x.csv"), CFG))
    assert "x.csv cannot be opened" in said
    assert f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} (ulimit -n)" in said


def test_no_temporary_folder_says_which_variable_names_one() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert "environment variable TMPDIR" in str(places.explain(error))


@given(
    number=st.sampled_from([*places.WRONG, errno.EMFILE]),
    name=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=400),
    wraps=st.integers(0, 3),
)
def test_whatever_the_name_it_is_one_line_that_can_be_shown(number: int, name: str, wraps: int) -> None:
    error: Exception = OSError(number, os.strerror(number), name)
    for _ in range(wraps):
        outer = RuntimeError("wrapped")
        outer.__cause__ = error
        error = outer
    said = places.explain(error, CFG)
    if number == errno.EEXIST and os.path.isdir(name):
        return
    assert said is not None
    assert said.isprintable()
    assert len(said) < 1100


# --- asked before the work


def trees(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_place_that_can_be_used_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new/deeper/still", tmp_path):
        places.check(folder, CFG)
        assert trees(tmp_path) == ["there"]


def bad_places(tmp_path: Path) -> dict[str, Path]:
    """Places that nobody can use, not even root."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere/at/all")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file/x/y",
        "a loop": tmp_path / "loop",
        "below a loop": tmp_path / "loop/x",
        "a dangling link": tmp_path / "dangling",
        "a long name": tmp_path / "new" / ("n" * 300),
        "a long path": tmp_path / "new" / "/".join(["n" * 200] * 30),
    }


BAD = ["a file", "below a file", "a loop", "below a loop", "a dangling link", "a long name", "a long path"]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_place_is_one_message_and_nothing_has_changed(kind: str, tmp_path: Path) -> None:
    place = bad_places(tmp_path)[kind]
    before = trees(tmp_path)
    with pytest.raises(PlaceError, match=r"cannot be used: .* choose another place: out=DIR\."):
        places.check(place, OmegaConf.create({"out": str(place)}))
    assert trees(tmp_path) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_is_noticed_and_nothing_is_left(number: int, tmp_path: Path, full: Callable[[int], None]) -> None:
    full(number)
    cfg = OmegaConf.create({"out": str(tmp_path / "new")})
    with pytest.raises(PlaceError, match=r"/new/deeper cannot be .* out=DIR"):
        places.check(tmp_path / "new/deeper", cfg)
    with pytest.raises(PlaceError, match=r"/new/deeper/x\.json cannot be"):
        places.check(tmp_path / "new/deeper", cfg, file="x.json")
    assert trees(tmp_path) == []


def test_so_is_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    with largest_file(1024), pytest.raises(PlaceError, match="larger than a file may be"):
        places.check(tmp_path / "new", CFG)
    assert trees(tmp_path) == []


def test_a_folder_where_a_file_is_to_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(PlaceError, match="a folder is where a file is needed"):
        places.check(tmp_path, CFG, file="x.json")


# --- commands


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_command_ends_with_one_line_and_code_1(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    @guard
    def export(cfg: object) -> None:
        raise OSError(number, os.strerror(number), "outputs/exports/x")

    with pytest.raises(SystemExit) as caught:
        export(CFG)
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("PlaceError: outputs/exports/x cannot be ")
    assert line.endswith("out=DIR.")


def test_the_sweep_leaves_with_our_errors_and_those_of_places_only(capsys: pytest.CaptureFixture[str]) -> None:
    ours: list[Exception] = [ConfigError("no"), OSError(errno.ENOSPC, "full", "x")]
    for error in ours:
        with pytest.raises(SystemExit):
            places.exit_with_message(error)
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(ValueError, match="a bug"):
        places.exit_with_message(ValueError("a bug"))


def typed(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "HYDRA"))}
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=plain, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.mark.parametrize("kind", ["a file", "below a file", "a loop"])
def test_the_folder_of_a_run_that_hydra_cannot_make_is_one_line(kind: str, root: Path, tmp_path: Path) -> None:
    place = bad_places(tmp_path)[kind]
    before = trees(tmp_path)
    done = typed(root, "src/train.py", "logger=none", f"hydra.run.dir={place}")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("PlaceError: ")
    assert "hydra.run.dir=DIR" in line
    assert trees(tmp_path) == before


def test_hydra_has_its_callback_in_every_command(root: Path) -> None:
    for path in (root / "conf").glob("*.yaml"):
        node = OmegaConf.load(path).hydra.callbacks.places
        assert node == {"_target_": f"{places.__name__}.{places.Ending.__name__}"}, path


def test_a_traceback_is_there_on_request(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["env", "HYDRA_FULL_ERROR=1", sys.executable, "src/train.py", f"hydra.run.dir={tmp_path / 'file'}"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert "Traceback" in done.stderr


def test_place_errors_are_ours() -> None:
    assert issubclass(PlaceError, SteadyError)
