"""What a stranger's name or message prints is seen, and does nothing."""

import importlib
import io
import logging
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from tests.markup import names

from steady import printing
from steady.printing import ReadableRecord, readable, readable_name, say

pytestmark = pytest.mark.security
BAD = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x08\x08", "\r", "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff",
       "\x00", "\u2028", "\x85", "\udcff", "\ud800", "\x1bPq\x1b\\", "\u00ad", "\U000e0041"]  # fmt: skip
GOOD = [
    "café.jpg",
    "cafe\u0301.jpg",
    "猫.jpg",
    "고양이",
    "قطة",
    "🐱.png",
    "👨\u200d👩\u200d👧",
    "❤️.jpg",
    "a\u202fb\xa0c",
    "ﬁ",
]
texts = st.lists(st.sampled_from([*BAD, *GOOD, "a", "\n", "\t", "\u200d"]), max_size=8).map("".join) | st.text()


def acts(char: str) -> bool:
    """Whether a terminal does anything with it but show it; a joiner between pictures is looked at elsewhere."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and char != printing.JOINER


@given(texts)
def test_nothing_acts_on_the_terminal(text: str) -> None:
    shown = readable(text)
    assert not any(acts(char) for char in shown if char not in "\n\t")
    assert not any(acts(char) for char in readable_name(text))
    assert readable(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", BAD)
def test_it_is_spelled_out(text: str) -> None:
    assert readable(f"a{text}b").startswith("a\\")
    assert readable(f"a{text}b").isascii()


@pytest.mark.parametrize("text", GOOD)
def test_true_names_stay_as_they_are(text: str) -> None:
    assert readable(text) == readable_name(text) == text


def test_a_joiner_that_joins_no_pictures_is_seen() -> None:
    assert readable("a\u200db\u200d") == "a\\u200db\\u200d"


def test_a_name_stays_in_its_line() -> None:
    assert readable_name("a\nDataError: b\tc") == "a\\nDataError: b\\tc"
    assert readable("two\nlines") == "two\nlines"


@given(texts)
def test_prints(text: str) -> None:
    say(text, Path("x"), file=(out := io.StringIO()))
    assert out.getvalue() == f"{readable(text)} x\n"


@pytest.mark.parametrize("bad", BAD)
def test_logs(bad: str) -> None:
    try:
        raise OSError(f"no {bad}")
    except OSError:
        caught = sys.exc_info()
    record = ReadableRecord(
        "catsweep.data", logging.INFO, "x.py", 1, "%s of %d: %s", (f"a{bad}\nb", 2, Path(bad)), caught
    )
    said = logging.Formatter("%(message)s").format(record)
    assert bad not in said
    assert said.startswith("a\\")
    assert "\nOSError: no \\" in said
    assert said.partition("\nTraceback")[0].count("\n") == 0


@pytest.mark.parametrize("name", ["catsweep.search", "optuna"])
def test_lines_of_the_log_itself_stay(name: str) -> None:
    assert ReadableRecord(name, 20, "x.py", 1, "two\nlines", (), None).getMessage() == "two\nlines"
    assert ReadableRecord(name, 20, "x.py", 1, "%(a)s", ({"a": "b\x1b"},), None).getMessage() == "b\\x1b"


@pytest.mark.parametrize("bad", BAD)
def test_tables_and_pictures_that_stay(bad: str) -> None:
    console = printing.console(file=(out := io.StringIO()), force_terminal=True, width=60, color_system=None)
    table = Table("name", title=f"t{bad}")
    table.add_row(f"[red]n{bad}[/red]")
    with Live(table, console=console, auto_refresh=False) as live:
        console.print(f"p{bad}")
        live.refresh()
    said = out.getvalue()
    if len(bad) > 1 or bad not in "\r\x1b":  # which Rich itself writes
        assert bad not in said
    assert "name" in said


def test_every_command_logs_readably() -> None:
    importlib.import_module("catsweep.commands")  # as each does first
    assert logging.getLogRecordFactory() is ReadableRecord


@pytest.mark.security
@given(names())
def test_no_name_is_markup_of_richs(name: str) -> None:
    name = readable(name.replace("\t", " "))  # Rich lays out before what is not seen is spelled
    console = printing.console(file=(out := io.StringIO()), width=4000, color_system="truecolor", force_terminal=True)
    table = Table(name, title=name, title_justify="left", box=None, title_style="", header_style="")
    table.add_row(name)
    console.print(table, name, highlight=False)
    assert re.findall(r"\x1b\[[\d;]*m", out.getvalue()) == []
    assert [line.strip() for line in out.getvalue().splitlines() if line.strip()] == [
        line.strip() for _ in range(4) for line in readable(name).split("\n") if line.strip()
    ]


def test_every_command_says_its_errors_readably(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "a\x1b]0;owned\x07\u202e"
    argv = [sys.executable, str(root / "src" / "prepare.py"), "data=photos", f'data.source="{source}"']
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "\\x1b]0;owned\\x07\\u202e" in said
    assert not any(acts(char) for char in said if char not in "\n\t")


@pytest.mark.security
def test_no_module_has_a_console_of_its_own(root: Path) -> None:
    own = re.compile(r"(?<!def )\bConsole\(|rich\.print|RichHandler")
    found = [path.name for path in (root / "src").rglob("*.py") if own.search(path.read_text(encoding="utf-8"))]
    assert found == []
