"""What `src/cats.py` trains on: GPUs if torch can use any, else the processor; and how many trials side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from catsweep.errors import ConfigError
from steady import resources

PER_GPU = 8  # trials: so many hardly slowed each other on an H200 (docs/decisions.md)
MEMORY, SIZE = 3.0, 64  # GiB of a GPU for each, with images of 64 pixels: 0.7 to 3.4 were seen
# Keys of hydra.sweeper that say how many slots there are.
OWN: dict[str, Any] = {"n_jobs": "auto", "gpus": "auto", "gpus_per_slot": 1.0}


@dataclass(frozen=True)
class Hardware:
    """A number of slots, the words for `src/train.py` that make them, and half a sentence for people."""

    slots: int
    words: list[str] = field(default_factory=list)
    said: str = "on the processor"

    @classmethod
    def of(cls, given: Sequence[str], size: int = SIZE) -> "Hardware":
        """Choose by what is there, unless the words that are `given` for `src/train.py` choose a trainer or the slots.

        Slots share a GPU as far as its free memory goes with images of that size, the cores, and the machine's memory.
        A ConfigError for a number of slots that is none.

        >>> Hardware.of(["trainer=cpu"]).words
        ['hydra.sweeper.gpus=0']
        """
        keys = _keys(given)
        gpus, named, torch = len(resources.visible_gpus("auto")), keys.get("trainer"), ""
        if gpus and named is None and (torch := _torch_without_gpus()):
            torch = f", since torch {torch} can use no GPU"
        trainer = named or ("gpu" if gpus and not torch else "cpu")
        own = {key: yaml.safe_load(keys[name]) for key in OWN if (name := f"hydra.sweeper.{key}") in keys}
        chosen: dict[str, Any] = {}
        said = f"by trainer={trainer}"
        if trainer == "cpu":  # said also where there is no GPU now: the run may go on where there is one
            chosen, said = {"gpus": 0}, f"on the processor{torch}"
        elif trainer == "gpu" and gpus:
            said = f"on {gpus} GPU{'s' if gpus > 1 else ''}"
            if not own:
                memory = min(resources.free_gpu_memory(), default=0.0) / max(1.0, (size / SIZE) ** 2)
                per_gpu = min(PER_GPU, int(memory / MEMORY), resources.slots("auto", 0, 1.0) // gpus)
                chosen = {"gpus_per_slot": 1 / max(1, per_gpu)}
        how = OWN | chosen | own
        if type(how["gpus_per_slot"]) not in (int, float) or how["gpus_per_slot"] <= 0:
            raise ConfigError(f"hydra.sweeper.gpus_per_slot must be above 0; got {how['gpus_per_slot']!r}.")
        words = [f"hydra.sweeper.{key}={value}" for key, value in chosen.items() if key not in own]
        slots = resources.slots(how["n_jobs"], how["gpus"], how["gpus_per_slot"])
        return cls(slots, words if named else [f"trainer={trainer}", *words], said)


def gpus_of(words: Sequence[str]) -> list[str]:
    """List the ids of the GPUs that a sweep with these words for `src/train.py` uses; none on the processor.

    >>> gpus_of(["trainer=cpu", "hydra.sweeper.gpus=0"])
    []
    """
    return resources.visible_gpus(yaml.safe_load(_keys(words).get("hydra.sweeper.gpus", "auto")))


def require(words: Sequence[str]) -> None:
    """Raise a ConfigError if a run was begun on a GPU, by `Hardware.words`, and there is none now."""
    if "trainer=gpu" in words and not (resources.visible_gpus("auto") and not _torch_without_gpus()):
        raise ConfigError(
            "This run was begun on a GPU, and torch finds none now: see what nvidia-smi shows. Give the same line "
            "where there is one, or begin another run: name=NAME."
        )


def _keys(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (str(word).partition("=") for word in words)}  # the last one counts


def _torch_without_gpus() -> str:
    """Get the version of a torch that can use no GPU; empty for one that can."""
    import torch  # takes seconds, and few machines have a GPU

    return "" if torch.cuda.is_available() else str(torch.__version__)
