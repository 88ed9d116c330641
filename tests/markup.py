"""Text of strangers that HTML, Markdown, YAML or Rich could take for more than text, and what a browser makes of it."""

from html.parser import HTMLParser

from hypothesis import strategies as st
from markdown_it import MarkdownIt

NAMES = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><script>alert(1)//", "<!-- ", "--> <b>",
    "a|b", "|", "||---|---|", r"a\|b", "\\", "\\\\|", "`", "``a``", "a` <b> `b", "```\nx", "a\n\n# b", "a\r\n---\r\n",
    "](javascript:alert(1))", "[link](https://evil.example)", "![x](https://evil.example/x.png)", "[a]: javascript:x",
    "<javascript:alert(1)>", "<https://evil.example>", "https://evil.example", "www.evil.example", "a@evil.example",
    "---", "- - -", "===", "- x", "+ x", "* x", "1. x", "1) x", "# x", "x #", "> x", ": x", ":--", "    x", "\tx",
    "**b**", "__b__", "~~b~~", "$x$", "{{7*7}}", "{% raw %}", "{#x#}", "${oc.env:HOME}", "${", "[bold red]x[/]", "[/]",
    ":cat:", "&lt;b&gt;", "&amp;", "&#60;b>", "&copy", "a\u2028b", "\u202egpj", "\x1b[2J", "\ud800", "'", '"', "", " ",
    "null", "no", "1e3", "0x1f", "2026-01-01", "!!python/object:os.system x", "&anchor", "*alias", "%YAML", "? x",
    "x: y", "[^1]", "[ ] x", "\x00", "x  \ny", "<details>", "<![CDATA[x]]>", "<?php x ?>", "-1.5", "1.5",
    "val/fid (lite0)",
)  # fmt: skip
VOID = {"br", "hr", "img", "meta", "link", "input"}


def names() -> st.SearchStrategy[str]:
    """Such names, and any others, of the signs that mean something most of all."""
    signs = st.text("|`*_[]()<>!&#-+=:~${}@.\\/\n\r\t \"'%?^0aw\u2028\ud800", max_size=24)
    return st.one_of(st.sampled_from(NAMES), signs, st.text(max_size=24), st.lists(st.sampled_from(NAMES)).map("".join))


class Seen(HTMLParser):
    """What stands in HTML.

    Attributes:
        tags: names of its elements, in order, with the attributes that act.
        texts: the text of each element, by its name; of a page, all of it under "".
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {"": [""]}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        acting = [name for name, _ in attrs if name in ("href", "src") or name.startswith("on")]
        self.tags.append(" ".join([tag, *acting]))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        for tag in {"", *self._open}:
            self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        """See `HTMLParser`."""
        self.tags.append("!--")

    def handle_pi(self, data: str) -> None:
        """See `HTMLParser`."""
        self.tags.append("?")

    def unknown_decl(self, data: str) -> None:
        """See `HTMLParser`."""
        self.tags.append("![")


def rendered(text: str) -> Seen:
    """Markdown as CommonMark reads it, with HTML, tables and strikethrough."""
    return Seen(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def on_one_line(text: str) -> str:
    """As a page shows a text: readable, blanks being one."""
    from steady.printing import readable

    return " ".join(readable(text).split())
