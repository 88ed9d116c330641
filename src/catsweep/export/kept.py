"""What a person wrote into the page of a bundle, kept beside the new page when the bundle is exported again.

The page asks its readers to put things right in it (the licence, above all), so `bundle` must not write over that.
"""

import shutil
from itertools import count
from pathlib import Path

from catsweep.export import digests
from catsweep.export.digests import KEPT, README

FIRST = "README.before.md"


def keep_page(before: Path, folder: Path) -> str | None:
    """Take over the edited page of the bundle that is about to be replaced, and those that were kept in it earlier.

    Args:
        before: the bundle that is there, if one is.
        folder: the new one.

    Returns:
        The name of the file that holds the page now; None if it was not edited.
    """
    for page in sorted(before.glob(KEPT)):
        if page.is_file() and not page.is_symlink():
            shutil.copyfile(page, folder / page.name)
    if not digests.page_was_edited(before):
        return None
    content = (before / README).read_bytes()
    if content == (folder / README).read_bytes():
        return None
    names = (FIRST if number == 1 else f"README.before-{number}.md" for number in count(1))
    name = next(name for name in names if not (folder / name).exists() or (folder / name).read_bytes() == content)
    (folder / name).write_bytes(content)
    return name
