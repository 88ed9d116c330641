"""What each command's own file, `conf/COMMAND.yaml`, holds beside its groups; see `catsweep.schema.groups`."""

from typing import Any

from catsweep.schema.groups import PIXELS, SHARE, operation, target
from catsweep.schema.kinds import PORT, SEEDS, Choice, Either, Node, Real, Several, Switch, Text, Trust, Whole
from catsweep.schema.nodes import Branch, Value, Values

SEED = Whole(0, SEEDS)
AUTO = "auto"  # of eval_every, as in `catsweep.validation_schedule`
MEASURES = ("brightness", "contrast", "warmth", "colour", "detail")  # as in `catsweep.generation.attributes`
FASTEST = 50  # frames per second; browsers slow a GIF down that is faster
LARGEST = 16  # times the images' side


def _text(null: bool = True) -> Value:
    return Value(Text(), null=null)


def _trust() -> Values:
    return Values(Several(Trust()), null=True)


TRAIN = {
    "seed": Value(SEED),
    "epochs": Value(Whole(1)),
    "minutes": Value(Real(0, 1e6, beyond=True), null=True),
    "eval_every": Value(Either((Whole(1), Choice((AUTO,))))),
    "patience": Value(Whole(1), null=True),
    "resume": Value(Either((Switch(), Text())), null=True),
    "trust": _trust(),
    "objective": Values(Several(Text(), least=1)),
    "study": _text(),
    "rungs": Values(Several(Real(0, 1, beyond=True, below=True), rising=True)),
    "trial": Branch(
        {"number": Value(Whole(0), null=True), "attempt": Value(Whole(0)), "study": _text(), "storage": _text()}
    ),
}

GENERATE = {
    "bundle": _text(),
    "run": _text(),
    "checkpoint": Value(Choice(("best", "last"))),
    "n": Value(Whole(1, 1_000_000)),
    "seed": Value(SEED),
    "truncation": Value(Real(0, 1, beyond=True)),
    "photos": _text(),
    "interpolate": Value(Whole(2, 10_000), null=True),
    "attribute": Branch(
        {
            "measure": Value(Choice(MEASURES), null=True),
            "with": _text(),
            "without": _text(),
            "strength": Value(Real(0, 1000, beyond=True)),
            "steps": Value(Whole(2, 10_000)),
            "draws": Value(Whole(4, 1_000_000)),
        }
    ),
    "out": _text(),
    "overwrite": Value(Switch()),
    "columns": Value(Whole(1, 10_000), null=True),
    "scale": Value(Whole(1, LARGEST)),
    "fps": Value(Whole(1, FASTEST)),
    "trust": _trust(),
}

EVALUATE = {
    "bundle": _text(),
    "exports": _text(null=False),
    "ready": _text(),
    "seed": Value(SEED, null=True),
    "out": Value(Text(ending=".json"), null=True),
    "trust": _trust(),
}

EXPORT = {
    "run": _text(null=False),
    "out": _text(null=False),
    "draws": Value(Whole(2, 10_000, or_0=True)),
    "ready": _text(),
    "trust": _trust(),
    "push": Value(Choice(("hub", "wandb")), null=True),
    "hub_repo": _text(),
    "private": Value(Switch()),
    "wandb_project": _text(null=False),
    "wandb_entity": _text(),
    "wandb_registry": _text(),
}

BEST_MODEL = {
    "study": _text(),
    "select": _text(null=False),
    "sweeps": _text(null=False),
    "outputs": _text(null=False),
    "out": _text(null=False),
}

REPORT = {
    "study": _text(),
    "select": _text(),
    "sweeps": _text(null=False),
    "outputs": _text(null=False),
    "ready": _text(null=False),
    "plotly": Value(Switch()),
}

DEMO = {"bundle": _text(), "run": _text(), "port": Value(PORT), "trust": _trust()}


def _zoom() -> Branch:
    return target(
        size=Value(Whole(1, PIXELS)),
        landmarks=Value(Switch()),
        cascades=Value(Switch()),
        border=Value(Choice(("reflect", "constant", "blur", "drop"))),
        colour=Values(Several(Whole(0, 255), length=3)),
        min_inside=Value(SHARE),
        max_enlarged=Value(Real(0, 1e6)),
        final=Value(Whole(1, PIXELS)),
        min_confidence=Value(SHARE),
        whole=Value(Choice(("auto", "always", "never"))),
    )


def _augment() -> Branch:
    return target(
        copies=Value(Whole(1, 100_000)),
        size=Value(Whole(1, PIXELS)),
        seed=Value(SEED),
        working=Value(Real(1, 16)),
        operations=Branch(
            {
                "flip": operation(changes=False),
                **{
                    name: operation()
                    for name in ("bright_dim", "bright_light", "contrast", "saturation", "crop_random")
                },
                "none": operation(changes=False),
            }
        ),
    )


def _format(**keys: Any) -> Branch:
    return target(suffix=Value(Choice((".jpg", ".png"))), **keys)


PREPARE = {
    "name": _text(),
    "size": Value(Whole(1, PIXELS)),
    "stages": Values(Several(Text(), least=1), null=True),
    "verify": Value(Choice(("auto", "serve", "csv"))),
    "export": _text(),
    "manifest": Value(Choice(("csv", "parquet"))),
    "download": Value(Switch()),
    "val_fraction": Value(Real(0, 1, below=True)),
    "seed": Value(SEED),
    "root": _text(null=False),
    "trust": _trust(),
    "pipeline": Values(Several(Node(), least=1)),
    "original": target(min_side=Value(Whole(0, PIXELS)), max_side=Value(Whole(1, 1 << 16))),
    "duplicates": target(
        threshold=Value(Real(0, 1, beyond=True)),
        review=Value(Real(0, 1, beyond=True)),
        mirrored=Value(Switch()),
        crops=Value(Switch()),
    ),
    "zoom": _zoom(),
    "verification": target(
        mode=Value(Choice(("auto", "serve", "csv"))),
        val_fraction=Value(Real(0, 1, below=True)),
        port=Value(PORT),
        tolerate=Values(Several(Text())),
    ),
    "augment": _augment(),
    "resize": target(size=Value(Whole(1, PIXELS))),
    "formats": Branch(
        {
            "jpg": _format(),
            "png": _format(),
            "tar": _format(images=Value(Whole(1))),
            "parquet": _format(images=Value(Whole(1))),
        }
    ),
}

SCHEMAS: dict[str, Any] = {
    "best_model": BEST_MODEL,
    "demo": DEMO,
    "evaluate": EVALUATE,
    "export": EXPORT,
    "generate": GENERATE,
    "prepare": PREPARE,
    "report": REPORT,
    "train": TRAIN,
}
