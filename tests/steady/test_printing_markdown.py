"""What `steady.printing` writes, as a parser of Markdown reads it: exactly the text, and nothing but the text."""

from pathlib import Path

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.markup import NAMES, names, on_one_line, rendered

from catsweep.templates import environment
from steady.printing import Markdown, code, fenced, plain, preformatted, readable, table

pytestmark = pytest.mark.security


@pytest.mark.parametrize("name", NAMES)
def test_a_strangers_text_is_read_as_it_is_wherever_it_stands(name: str) -> None:
    check(name)


@given(names())
def test_any_text_is_read_as_it_is_wherever_it_stands(name: str) -> None:
    check(name)


def check(name: str) -> None:
    wanted = on_one_line(name)
    for before, tags in (("", ["p"]), ("x ", ["p"]), ("# ", ["h1"]), ("- ", ["ul", "li"]), ("a **b** [c](d) ", None)):
        seen = rendered(f"{before}{plain(name)}\n\nend\n")
        assert tags is None or not wanted or seen.tags == [*tags, "p"]
        assert tags is not None or seen.tags == ["p", "strong", "a href", "p"]
        assert on_one_line(seen.texts[""][0]).removesuffix("end").strip().removeprefix(
            {"x ": "x", "a **b** [c](d) ": "a b c"}.get(before, "")
        ).strip() == wanted  # fmt: skip
    seen = rendered(f"- {code(name)} end\n")
    assert seen.tags == ["ul", "li", "code"]
    assert on_one_line(seen.texts["code"][0]) == wanted


@given(st.lists(st.lists(names(), min_size=3, max_size=3), min_size=1, max_size=3))
@example([["|", "\\", "`"], ["a\\", "`|`", "--"]])
def test_a_table_has_the_cells_it_was_given(rows: list[list[str]]) -> None:
    for cells in (rows, [[code(one) for one in row] for row in rows]):
        seen = rendered("\n".join(["before", "", *table(cells[0], cells), "", "after"]))
        assert seen.tags.count("th") == 3
        assert seen.tags.count("td") == 3 * len(rows)
        assert set(seen.tags) <= {"p", "table", "thead", "tbody", "tr", "th", "td", "code"}
        assert [on_one_line(one) for one in seen.texts["td"]] == [on_one_line(one) for row in rows for one in row]


@given(names())
def test_a_block_of_code_is_all_and_only_the_text(text: str) -> None:
    seen = rendered("\n".join([*fenced(text), "", "end"]))
    assert seen.tags == ["pre", "code", "p"]
    assert seen.texts["code"][0].splitlines() == readable(text).splitlines()
    seen = rendered(f"<details><summary>x</summary>\n\n{preformatted(text)}\n\n</details>\n\nend")
    assert seen.tags == ["details", "summary", "pre", "p"]
    assert seen.texts["pre"][0].strip("\n") == readable(text).replace("\r", "").strip("\n")


@given(names())
def test_a_template_of_markdown_escapes_what_nobody_thought_of(name: str) -> None:
    filled = environment(Path(), html=False)
    text = filled.from_string("# {{ name }}\n\n{{ ready }} {% for one in [name] %}{{ one ~ '' }}{% endfor %}\n")
    seen = rendered(text.render(name=name, ready=Markdown("**ours**")))
    assert [tag for tag in seen.tags if tag not in ("h1", "p")] == ["strong"]
    with pytest.raises(jinja2.UndefinedError):
        filled.from_string("{{ nobody }}").render()


def test_what_is_no_markup_stays_readable_as_it_stands() -> None:
    assert plain("val/fid (efficientnet-lite0) -1.5 → 41.25, 3 of 9: cats-64") == (
        "val/fid (efficientnet-lite0) -1.5 → 41.25, 3 of 9: cats-64"
    )
    assert [plain("-1.5"), plain("1.5"), code("loss=l1"), plain(3)] == ["-1.5", "1.5", "`loss=l1`", "3"]
    assert plain(plain("a_b")) == r"a\_b"


@pytest.mark.parametrize("link", ["https://evil.example", "www.evil.example", "mailto:a@evil.example"])
def test_nothing_is_left_that_github_makes_a_link_of_without_being_asked(link: str) -> None:
    assert not any(sign in plain(link) for sign in ("://", "www.", "@", "mailto:"))
