"""Image sets of the Hugging Face Hub as a source, by their id: `data=hub_cats data.source=USER/NAME`.

Needs the optional package `datasets`, which keeps what it fetched, and no account. A set is a stranger's: its card may
name any file of this machine as its data, and its rows any file as an image. Only what lies in the set itself is read,
as bytes, which `catsweep.data.decode` alone decodes.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catsweep.data.decode import MAX_BYTES, Unreadable, check_size, read_bytes
from catsweep.data.files import Files
from catsweep.data.sources import Photos, fetching
from catsweep.errors import ConfigError, DataError

PATIENCE = 10  # seconds for the Hub to answer


class HubCats(Photos):
    """Images of one column of a set: centre square, resized.

    Args:
        source: id on the Hub (`user/name`), or a local folder of the same form (images, or parquet files of them).
        split: of the set.
        column: that holds the images; None: the only one that does.
    """

    name = "hub_cats"
    code = (*Photos.code, "data/hub.py")

    def __init__(self, source: str | None, split: str = "train", column: str | None = None, min_side: int = 32) -> None:
        super().__init__(source, min_side)
        self.split, self.column = split, column

    def __str__(self) -> str:
        return f"images in split {self.split} of {self.folder}"

    @cached_property
    def files(self) -> Files:
        """See `Photos`."""
        if self.folder is None:
            raise ConfigError(f"data={self.name} needs an image set: add data.source=USER/NAME to the command.")
        return HubFiles(str(self.folder), self.split, self.column)


class HubFiles(Files):
    """Images of a set as `Files`, each named by its row: `train/0000012`. DataError if the set cannot be had."""

    def __init__(self, source: str, split: str, column: str | None) -> None:
        place = Path(source).expanduser()
        self._local = place.is_dir()
        rows, self._roots = _load(str(place) if self._local else source, split)
        import datasets

        images = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
        if (column or (images[0] if len(images) == 1 else None)) not in images:
            raise DataError(
                f"Expected one column of images in {source}, or data.reader.column=NAME, got column={column}; "
                f"of its columns {', '.join(rows.features)} these hold images: {', '.join(images) or 'none'}."
            )
        self._column = column or images[0]
        self._rows = rows.select_columns([self._column]).cast_column(self._column, datasets.Image(decode=False))
        self._split = split

    def __iter__(self) -> Iterator[str]:
        return (f"{self._split}/{row:07d}" for row in range(len(self._rows)))

    def __contains__(self, name: object) -> bool:
        return self._row(str(name)) is not None

    def size(self, name: str) -> int:
        """See `Files`."""
        row = self._row(name)
        return 0 if row is None else int(self._sizes[row]) or MAX_BYTES  # of a file of its own it is not known yet

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        if (row := self._row(name)) is None:
            raise Unreadable("cannot be opened: there is no such row")
        if size := int(self._sizes[row]):
            check_size(size, limit)
            return bytes(self._rows[row][self._column]["bytes"])
        image = self._rows[row][self._column]
        if image is None or not image["path"]:
            raise Unreadable("empty file")
        if not _is_within(image["path"], self._roots):
            raise Unreadable(f"not in the set: its row names {image['path']!r}")
        # What was fetched stands behind links in the cache; those in a folder of one's own are not followed.
        return read_bytes(image["path"] if self._local else os.path.realpath(image["path"]), limit)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """Bytes of each image within the set, int64 (rows,); 0 for those in files of their own."""
        import pyarrow.compute as pc

        content = pc.struct_field(self._rows.data.column(self._column), "bytes")
        return np.asarray(pc.fill_null(pc.binary_length(content), 0).to_numpy(), np.int64)

    def _row(self, name: str) -> int | None:
        split, _, row = name.rpartition("/")
        return int(row) if split == self._split and row.isdecimal() and int(row) < len(self._rows) else None


def _load(source: str, split: str) -> tuple[Any, list[Path]]:
    """Load the rows of a split, `datasets.Dataset`, and the folders in which files of the set may lie."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "Expected datasets, which reads sets of the Hugging Face Hub, but it is not installed: "
            "pip install datasets. Or use photos in a folder: data=photos data.source=DIR."
        ) from error
    local = Path(source).is_dir()
    remedy = (
        "Check the id (USER/NAME) and data.reader.split; the first time it takes a network, but no account. Without "
        "one, give a folder: data=photos data.source=DIR."
    )
    with (
        fetching(f"split {split} of a public image set {source}", remedy, "HF_HOME"),
        nullcontext() if local or _is_reachable(source) else _offline(),
    ):
        builder = datasets.load_dataset_builder(source)
        base = str(builder.base_path or source)
        roots = _folders_of_local(source) if local else _folders_of_hub(base, source)
        _check_files(source, builder.config.data_files or {}, roots if local else [], base)
        return datasets.load_dataset(source, split=split), roots


def _check_files(source: str, data_files: Mapping[str, Iterable[str]], roots: list[Path], base: str) -> None:
    """Refuse a set whose card names files as its data that are not its own, before any is read."""
    for name in [str(name) for names in data_files.values() for name in names]:
        own = name == base or name.startswith((f"{base}/", "https://", "http://"))
        if not (_is_within(name, roots) if roots else own):
            raise DataError(
                f"Expected {source} to hold its own data, but its card (README.md) names {name!r}. Take that out of "
                "the card, or use another set."
            )


def _folders_of_local(source: str) -> list[Path]:
    """Name the folders of a local set: itself, and where its links lead if the Hub's own client fetched it."""
    root = Path(source).resolve()
    return [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]


def _folders_of_hub(base: str, source: str) -> list[Path]:
    """Name the cache folders of a set on the Hub; `base` is hf://datasets/USER/NAME@REVISION, or offline a folder."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    hub = "hf://datasets/"
    name = base.removeprefix(hub).partition("@")[0] if base.startswith(hub) else source
    fetched = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
    return [fetched.resolve(), Path(datasets.config.EXTRACTED_DATASETS_PATH).resolve()]


def _is_within(path: str, roots: Iterable[Path]) -> bool:
    with suppress(ValueError):  # a name with a zero byte
        return any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots)
    return False


def _is_reachable(source: str) -> bool:
    """Ask the Hub once, for `datasets` would try for half a minute; raises if it does not know the id."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(source, timeout=PATIENCE)
    except (HFValidationError, RepositoryNotFoundError):
        raise
    except Exception:  # no network, a proxy that lets nobody through, a server that is down
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Use only what was fetched before, while the block runs."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
