"""MkDocs' hooks: pages that are made of other files at each build, so that they never say anything else.

`.mkdocs.yml` names this file. The front page is README.md; the reference is made by `docs/hooks/reference.py`.
"""

import re
from pathlib import Path
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CONF = reference.CONF
ROOT = CONF.parent
SCHEMA = ROOT / "src" / "hydra_plugins" / "steady_sweeper" / "config.py"
COPIED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the groups' pages where the navigation says `Groups`."""
    pages = ["reference/groups/index.md", *(f"reference/groups/{group}.md" for group in reference.groups(CONF))]
    config.nav = _filled(config.nav, pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    for name, content in made(Path(config.docs_dir)).items():
        files.append(File.generated(config, name, content=content))
    return files


def made(docs: Path) -> dict[str, str]:
    """All such pages: {path in the site's sources: Markdown}.

    Args:
        docs: folder of the pages that were written by hand.
    """
    api = reference.api_names(docs / "reference" / "api")
    names = reference.groups(CONF)
    listed = "\n".join(f"- [{name}]({name}.md)" for name in names)
    pages = {copy: _relative((ROOT / name).read_text(encoding="utf-8")) for name, copy in COPIED.items()}
    pages |= {f"reference/groups/{name}.md": reference.group_page(CONF, name, api) for name in names}
    return pages | {
        "reference/groups/index.md": f"# Groups\n\n{GROUPS}\n\n{listed}\n",
        "reference/commands.md": reference.commands_page(CONF, api),
        "reference/make.md": reference.make_page(ROOT / "Makefile"),
        "reference/sweeper.md": reference.sweeper_page(SCHEMA, CONF / "hydra" / "sweeper" / "steady.yaml"),
    }


GROUPS = """Each group is a folder in `conf/`, each option a file in it, and each of these pages is made of those files.
`GROUP=OPTION` on the command line chooses; a key of an option is changed by its path, as the tables show it."""


def _relative(page: str) -> str:
    """A page of the root as one of docs/: its links lead to the site's pages."""
    page = re.sub(r"\]\(docs/([^)]*)\)", r"](\1)", page)
    for name, copy in COPIED.items():
        page = page.replace(f"]({name})", f"]({copy})")
    return page


def _filled(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_filled(entry, pages) for entry in nav]
    if isinstance(nav, dict):
        return {title: pages if title == "Groups" else _filled(entry, pages) for title, entry in nav.items()}
    return nav
