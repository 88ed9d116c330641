"""What `src/cats.py` trains on: GPUs if torch can use any, else the processor; and how many trials side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steady import resources

PER_GPU = 8  # trials: so many did not slow each other on an H200, since a step of these networks waits for Python
MEMORY, SIZE = 3.0, 64  # GiB of a GPU for each, with images of 64 pixels: 0.7 to 3.4 were seen


@dataclass(frozen=True)
class Hardware:
    """A number of slots, and the words for `src/train.py` that make them."""

    slots: int
    words: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, given: Sequence[str], size: int = SIZE) -> "Hardware":
        """Choose by what is there, unless the words that are `given` for `src/train.py` choose a trainer.

        Slots share a GPU as far as its free memory goes with images of that size, the cores, and the machine's memory.

        >>> Hardware.of(["trainer=cpu"]).slots >= 1
        True
        """
        named = [value for key, _, value in (str(word).partition("=") for word in given) if key == "trainer"]
        gpus = len(resources.visible_gpus("auto"))
        trainer = named[-1] if named else "gpu" if gpus and _torch_has_gpus() else "cpu"
        if gpus and trainer == "gpu":
            memory = min(resources.free_gpu_memory(), default=0.0) / max(1.0, (size / SIZE) ** 2)
            per_gpu = max(1, min(PER_GPU, int(memory / MEMORY), resources.slots("auto", 0, 1.0) // gpus))
            return cls(per_gpu * gpus, ["trainer=gpu", f"hydra.sweeper.gpus_per_slot={1 / per_gpu}"])
        if gpus and trainer == "cpu":
            return cls(resources.slots("auto", 0, 1.0), ["trainer=cpu", "hydra.sweeper.gpus=0"])
        return cls(resources.slots("auto", "auto", 1.0))


def _torch_has_gpus() -> bool:
    import torch  # takes seconds, and few machines have a GPU

    return torch.cuda.is_available()
