"""Replace a folder as a whole, so that a reader sees the old one or the new one and never a half."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Build a folder beside the place it will take, and put it there when the block ends without an error.

    An error inside the block leaves whatever was there before, and no debris.

    Args:
        folder: where the result goes. May exist (it is replaced), its parents need not.

    Yields:
        An empty folder to build in, on the same file system.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
    ) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        if not folder.exists():
            os.replace(new, folder)
            return
        # A folder cannot be renamed onto a full one, so the old one steps aside for that moment.
        os.replace(folder, old)
        try:
            os.replace(new, folder)
        except BaseException:
            os.replace(old, folder)
            raise
