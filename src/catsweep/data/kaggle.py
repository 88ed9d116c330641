"""Fetch the Kaggle cat photos: 9,000 cats with nine landmarks each, for `data=kaggle_cats download=true`.

Needs the optional package `kagglehub`, which keeps what it fetched (4 GB) and fetches it once.
"""

import logging
from pathlib import Path

from catsweep.errors import DataError, PlaceError
from steady.places import explain

DATASET = "crawford/cat-dataset"

log = logging.getLogger(__name__)


def download() -> Path:
    """The folder of the photos, fetched if it is not here yet.

    Raises:
        DataError: the package is missing, or the photos cannot be had.
        PlaceError: there is no room for them.
    """
    otherwise = f"Or download {DATASET} in a browser, and give it by data=kaggle_cats data.source=DIR (or its .zip)."
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            "Expected kagglehub, which fetches data from Kaggle, but it is not installed: pip install kagglehub. "
            + otherwise
        ) from error
    log.info("Fetching %s from Kaggle (4 GB, once).", DATASET)
    try:
        return Path(kagglehub.dataset_download(DATASET))
    except Exception as error:  # requests', kagglehub's own, and those of zip files and disks
        if (wrong := explain(error, key="the environment variable KAGGLEHUB_CACHE")) is not None:
            raise PlaceError(wrong) from error
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"Expected to fetch {DATASET} from Kaggle, but: {type(error).__name__}: {said}. It takes a network; if "
            f"Kaggle refuses, also an account, whose token goes into KAGGLE_API_TOKEN. {otherwise}"
        ) from error
