"""What became of a study: the model that was exported, and what it took; `exported.json` in the study's folder.

`src/cats.py` writes it before the report of its search, which shows it first. A study folder may be a stranger's: what
is no such document is none, and the named run is looked at only if it lies among the runs.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from catsweep.errors import DataError
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, is_score, misshapen, read_json
from steady.atomic import write_json
from steady.safe_paths import inside


@dataclass(frozen=True)
class Exported:
    """The exported model of a study."""

    FILE: ClassVar[str] = "exported.json"
    SHAPE: ClassVar[dict[str, Any]] = {
        "trial": WHOLE, "run": TEXT, "bundle": TEXT, "remark": TEXT, "before": {ANY: NUMBER}, "after": {ANY: NUMBER},
        "budget": NUMBER, "planned": {ANY: NUMBER}, "spent": {ANY: NUMBER},
    }  # fmt: skip

    trial: int  # whose model it is
    run: str  # folder of the exported run: that of the trial, or of a copy that was trained on
    bundle: str  # folder
    remark: str  # whether it was trained on, and what that has brought
    before: Mapping[str, float]  # scores of the trial
    after: Mapping[str, float]  # scores of the copy that was trained on, also if the trial was exported
    budget: float  # seconds in all
    planned: Mapping[str, float]  # seconds by step, 0 where its time is another step's
    spent: Mapping[str, float]  # seconds by step, in their order, without the report

    def write(self, study: Path) -> None:
        """Write it into a study's folder."""
        write_json(study / self.FILE, asdict(self))

    @classmethod
    def read(cls, study: Path) -> "Exported | None":
        """Read what is in a study's folder; None if it is missing or damaged, or has a number that no score can be."""
        try:
            found = read_json(study / cls.FILE) if inside(study, study / cls.FILE) else {}
            known = {key: found[key] for key in cls.SHAPE}
        except (DataError, KeyError):
            return None
        parts = [part.values() for part in known.values() if isinstance(part, dict)]
        numbers = [known["budget"], *chain.from_iterable(parts)]
        if None in [*known.values(), *numbers] or misshapen(known, cls.SHAPE) or not all(map(is_score, numbers)):
            return None
        return cls(**known)

    def run_within(self, runs: Path) -> Path | None:
        """The folder of the exported run, if it is there and within `runs`."""
        run = Path(self.run)
        with suppress(OSError):  # a name that is too long
            if run.is_dir() and inside(runs, run):
                return run
        return None
