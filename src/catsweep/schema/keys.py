"""Types and ranges of the keys in `conf/`: of each option of a group, and of each command's own file.

`conf/GROUP/OPTION.yaml` and `conf/COMMAND.yaml` name their schema in their defaults, and have the values and what they
mean. An option of the user's own needs none; one that starts from ours has the kinds of its keys.
"""

from typing import Any

from catsweep.schema.kinds import COUNT, SEEDS, Choice, Either, Kind, Node, Real, Several, Switch, Text, Trust, Whole
from catsweep.schema.nodes import Branch, Value, Values

PIXELS = 8192  # of a side, more than any photo's that is trained on
UNIT = Real(0, 1)


def whole(low: int, high: int = COUNT, null: bool = False, or_0: bool = False) -> Value:
    """A whole number."""
    return Value(Whole(low, high, or_0), null)


def real(low: float, high: float, null: bool = False, beyond: bool = False, below: bool = False) -> Value:
    """A number."""
    return Value(Real(low, high, beyond, below), null)


def choice(*words: str, null: bool = False) -> Value:
    """One of some words."""
    return Value(Choice(words), null)


def several(kind: Kind, null: bool = False, length: int | None = None, least: int = 0, rising: bool = False) -> Values:
    """A list."""
    return Values(Several(kind, length, least, rising), null)


def target(**keys: Any) -> Branch:
    """A node that is built."""
    return Branch({"_target_": TEXT, **keys})


def part(**keys: Any) -> Branch:
    """A node that makes a partial function."""
    return target(_partial_=SWITCH, **keys)


# Nodes that several keys have; each key gets a copy.
SWITCH = Value(Switch())
TEXT = Value(Text())
TEXT_OR_NULL = Value(Text(), null=True)
SEED = whole(0, SEEDS)
SIDE = whole(1, PIXELS)
MIN_SIDE = whole(0, PIXELS)
POSITIVE = whole(1)
WIDTH = whole(1, 65536)
HALVINGS = whole(1, 12)
THREADS = whole(1, 4096, null=True)
PORT = whole(0, (1 << 16) - 1)
SHARE = Value(UNIT)
BELOW_1 = real(0, 1, below=True)
WEIGHT = real(0, 1e6)
SLOPE = real(0, 1000)
RATE = real(0, 1e30)  # of float32; 0 trains nothing, and the largest diverge, which a run says itself
BETAS = several(Real(0, 1, below=True), length=2)
ANY = Branch()
CONVERSION = choice("none", "partial", "object", "all")
REFERENCE = choice("all", "train", "val")
NETWORK = choice("efficientnet_lite1", "efficientnet_lite0")
POLICY = several(Choice(("color", "translation", "cutout")))
TRUST = several(Trust(), null=True)


def _images(reader: Branch, **more: Any) -> Branch:
    """A data module of photos from a reader."""
    batches = {"batch_size": POSITIVE, "val_fraction": BELOW_1, "flip": SWITCH, "seed": SEED}
    return target(source=TEXT_OR_NULL, **more, reader=reader, size=SIDE, root=TEXT, **batches)


# Keys of one topic share a line.
# fmt: off
UNCHANGED = target(probability=SHARE)  # an operation of `catsweep.data.operations` without a range
OPERATION = target(probability=SHARE, range=several(Real(0, 100), length=2))
OPERATIONS = dict.fromkeys(("bright_dim", "bright_light", "contrast", "saturation", "crop_random"), OPERATION)


def _trainer(**keys: Any) -> Branch:
    names = ("auto", "16", "16-mixed", "16-true", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true")
    return target(
        accelerator=choice("auto", "cpu", "gpu", "cuda", "mps"),
        devices=Value(Either((Whole(1, 1024), Choice(("auto",)), Several(Whole(0, 1023), least=1)))), **keys,
        precision=choice(*names), threads=THREADS,
    )


MEAN, STD = several(Real(-1e6, 1e6), length=3), several(Real(0, 1e6, beyond=True), length=3)


def _judge(**extractor: Any) -> Branch:
    """A judge: a network in a file and its preprocessing."""
    return part(
        required=SWITCH,
        extractor=target(
            file=TEXT, sha256=TEXT_OR_NULL, name=TEXT_OR_NULL, size=whole(1, PIXELS, null=True), mean=MEAN,
            std=STD, interpolation=choice("bicubic", "bilinear"), pool=choice("cls", "mean", "none"),
            threads=THREADS, **extractor,
        ),
        cache_root=TEXT_OR_NULL, samples=whole(2), seed=SEED, reference=REFERENCE, batch_size=POSITIVE,
    )


def _optimizer(**keys: Any) -> Branch:
    return part(_convert_=CONVERSION, lr=RATE, **keys)


def _recipe(**more: Any) -> Branch:
    """Customary values for a model, or with a discriminator."""
    return Branch({"lr": RATE, "betas": BETAS, "lion_lr": RATE, "sgd_lr": RATE, **more})


NETWORKS = {
    "image_size": SIDE, "latent_size": WIDTH, "halvings": HALVINGS, "channels": WIDTH, "max_channels": WIDTH,
    "block": ANY, "normalization": ANY,
}
DISCRIMINATOR = {
    "image_size": SIDE, "channels": WIDTH, "normalization": ANY, "activation": part(negative_slope=SLOPE),
    "spectral_norm": SWITCH,
}
PROJECTED = {
    "network": NETWORK, "strides": several(Whole(2, 16), least=1), "head_channels": WIDTH,
    "min_side": whole(1, 512, null=True), "pixels": SWITCH,  # a batch of larger images would fill the memory
}


def _discriminator(**keys: Any) -> dict[str, Any]:
    """A discriminator and its recipe."""
    recipe = _recipe(discriminator_lr=RATE, batch_size=POSITIVE, ema_decay=BELOW_1, threads=THREADS, augment=POLICY)
    return {"discriminator": target(**DISCRIMINATOR, **keys), "recipe": recipe}


GROUPS: dict[str, Any] = {
    "activation_leaky_relu": part(negative_slope=SLOPE),
    "background_keep": target(remover=Branch(null=True)),
    "background_remove": target(
        fill=choice("white", "black", "mean", "blur", "transparent"),
        **dict.fromkeys(("min_foreground", "max_foreground", "max_unsure"), SHARE),
    ),
    "background_remover_grabcut": target(side=whole(16, PIXELS), rounds=whole(1, 1000), margin=real(0, 0.25)),
    "background_remover_onnx": target(
        file=TEXT, size=whole(1, PIXELS, null=True), mean=MEAN, std=STD, output=choice("plain", "minmax", "logits")
    ),
    "background_remover_rembg": target(model=TEXT_OR_NULL),
    "data_augment_mild": Branch(OPERATIONS),
    "data_demo_cats": _images(target(n=whole(1, 1_000_000), seed=SEED)),
    "data_hub_cats": _images(target(source=TEXT_OR_NULL, split=TEXT, column=TEXT_OR_NULL, min_side=MIN_SIDE)),
    "data_kaggle_cats": _images(
        target(
            folder=TEXT_OR_NULL, download=SWITCH,
            face=Branch(dict.fromkeys(("left_eye", "right_eye", "mouth"), several(UNIT, length=2))),
            min_eye_distance=real(0, PIXELS), min_inside=SHARE, standard=whole(8, PIXELS),
        ),
        download=SWITCH,
    ),
    "data_photos": _images(target(folder=TEXT_OR_NULL, min_side=MIN_SIDE)),
    "data_ready": target(source=TEXT_OR_NULL, size=SIDE, batch_size=POSITIVE, flip=SWITCH, seed=SEED),
    "depth": Branch({"halvings": HALVINGS}),
    "discriminator_plain": _discriminator(halvings=HALVINGS, max_channels=WIDTH, down=ANY),
    "discriminator_projected": _discriminator(**PROJECTED),
    "hparams_search": {"study": TEXT_OR_NULL, "trials": POSITIVE},
    "judge": _judge(output=TEXT_OR_NULL),
    "judge_none": Branch({"_target_": TEXT_OR_NULL}),
    "judge_torch": _judge(),
    "logger_trackio": target(project=TEXT, save_dir=TEXT, system=SWITCH),
    "logger_wandb": target(
        project=TEXT, **dict.fromkeys(("entity", "group", "name", "job_type"), TEXT_OR_NULL),
        tags=several(Text()), watch=choice("gradients", "parameters", "all", null=True), system=SWITCH,
        mode=choice("auto", "online", "offline", "disabled"), save_dir=TEXT,
    ),
    "loss_perceptual": Branch({"reconstruction": part(features=SHARE, network=NETWORK)}),
    "loss_wgan_gp": Branch({"adversarial": target(gradient_penalty=WEIGHT)}),
    "metrics_default": part(
        extractor=target(backend=choice("auto", "onnx", "torch"), threads=THREADS, cache_root=TEXT_OR_NULL),
        scores=ANY, cache_root=TEXT_OR_NULL, samples=whole(2), rung_samples=whole(2), seed=SEED,
        reference=REFERENCE, batch_size=POSITIVE,
    ),
    "metrics_inception": Branch({"extractor": target(weights=TEXT, download=SWITCH)}),
    "model_dcgan": {  # its recipe comes with the discriminator
        "model": target(
            **NETWORKS,
            **dict.fromkeys(("activation", "discriminator", "adversarial_loss", "optimizer", "schedule"), ANY),
            generator_lr=RATE, discriminator_lr=RATE, ema_decay=BELOW_1, r1_gamma=WEIGHT, r1_every=POSITIVE,
            augment=target(policy=POLICY),
        )
    },
    "model_vae": {
        "model": target(
            **NETWORKS, activation=ANY, reconstruction_loss=ANY, beta=WEIGHT, beta_warmup=SHARE,
            free_bits=WEIGHT, aggregate_prior=SWITCH, ema_decay=BELOW_1, optimizer=ANY, schedule=ANY,
            adversarial=target(
                weight=WEIGHT, start=SHARE, similarity=SHARE, discriminator=part(**DISCRIMINATOR, **PROJECTED),
                loss=target(), optimizer=_optimizer(betas=BETAS, fused=SWITCH), augment=target(policy=POLICY),
            ),
        ),
        "recipe": _recipe(),
    },
    "model_vae_pretrained": {
        "model": target(
            _convert_=CONVERSION, image_size=SIDE,
            **dict.fromkeys(("source", "subfolder", "revision"), TEXT_OR_NULL), architecture=Branch(null=True),
            train=choice("prior", "decoder"), couplings=whole(1, 1024), hidden=WIDTH,
            **dict.fromkeys(("reconstruction_loss", "optimizer", "schedule"), ANY),
        ),
        "recipe": _recipe(),
    },
    "normalization_group": part(group_size=WIDTH),
    "optimizer_adam": _optimizer(betas=BETAS, fused=SWITCH),
    "optimizer_adamw": _optimizer(betas=BETAS, weight_decay=WEIGHT, fused=SWITCH),
    "optimizer_lion": _optimizer(betas=BETAS, weight_decay=WEIGHT, foreach=SWITCH),
    "optimizer_radam": _optimizer(betas=BETAS, foreach=SWITCH),
    "optimizer_rmsprop": part(lr=RATE, alpha=BELOW_1),
    "optimizer_sgd": part(lr=RATE, momentum=BELOW_1, nesterov=SWITCH, fused=SWITCH),
    "schedule_constant": part(warmup=SHARE),
    "schedule_falling": part(warmup=SHARE, final=SHARE),
    "trainer": _trainer(),
    "trainer_ddp": _trainer(strategy=TEXT, sync_batchnorm=SWITCH),
    "width": Branch({"channels": WIDTH, "max_channels": WIDTH}),
}


IMAGE_FORMAT = target(suffix=choice(".jpg", ".png"))
SHARDS = target(suffix=choice(".jpg", ".png"), images=POSITIVE)

COMMANDS: dict[str, Any] = {
    "best_model": {
        "study": TEXT_OR_NULL, "storage": TEXT_OR_NULL, **dict.fromkeys(("select", "sweeps", "outputs", "out"), TEXT),
    },
    "cats": {
        "source": TEXT_OR_NULL, "budget": real(0, 1e5, beyond=True), "size": SIDE, "name": TEXT_OR_NULL, "out": TEXT,
        **dict.fromkeys(("prepare", "train"), several(Text())),
    },
    "demo": {"bundle": TEXT_OR_NULL, "run": TEXT_OR_NULL, "port": PORT, "trust": TRUST},
    "evaluate": {
        "bundle": TEXT_OR_NULL, "exports": TEXT, "ready": TEXT_OR_NULL, "seed": whole(0, SEEDS, null=True),
        "out": Value(Text(ending=".json"), null=True), "trust": TRUST,
    },
    "export": {
        "run": TEXT, "study": TEXT_OR_NULL, "out": TEXT, "draws": whole(2, 10_000, or_0=True), "ready": TEXT_OR_NULL,
        "trust": TRUST, "push": choice("hub", "wandb", null=True), "hub_repo": TEXT_OR_NULL, "private": SWITCH,
        "wandb_project": TEXT, "wandb_entity": TEXT_OR_NULL, "wandb_registry": TEXT_OR_NULL,
    },
    "generate": {
        "bundle": TEXT_OR_NULL, "run": TEXT_OR_NULL, "checkpoint": choice("best", "last"),
        "n": whole(1, 1_000_000), "seed": SEED, "truncation": real(0, 1, beyond=True), "photos": TEXT_OR_NULL,
        "interpolate": whole(2, 10_000, null=True),
        "attribute": Branch(
            {
                # As in `catsweep.generate.interpolation`.
                "measure": choice("brightness", "contrast", "warmth", "colour", "detail", null=True),
                "with": TEXT_OR_NULL, "without": TEXT_OR_NULL, "strength": real(0, 1000, beyond=True),
                "steps": whole(2, 10_000), "draws": whole(4, 1_000_000),
            }
        ),
        "out": TEXT_OR_NULL, "overwrite": SWITCH, "columns": whole(1, 10_000, null=True), "scale": whole(1, 16),
        "fps": whole(1, 50), "trust": TRUST,  # browsers slow a GIF down that is faster
    },
    "prepare": {
        "name": TEXT_OR_NULL, "size": SIDE, "stages": several(Text(), least=1, null=True),
        "verify": choice("auto", "serve", "csv"), "export": TEXT_OR_NULL, "manifest": choice("csv", "parquet"),
        "download": SWITCH, "val_fraction": BELOW_1, "seed": SEED, "root": TEXT, "trust": TRUST,
        "pipeline": several(Node(), least=1), "original": target(min_side=MIN_SIDE, max_side=whole(1, 1 << 16)),
        "duplicates": target(
            threshold=real(0, 1, beyond=True), review=real(0, 1, beyond=True), mirrored=SWITCH, crops=SWITCH
        ),
        "zoom": target(
            size=SIDE, landmarks=SWITCH, cascades=SWITCH, border=choice("reflect", "constant", "blur", "drop"),
            colour=several(Whole(0, 255), length=3), min_inside=SHARE, max_enlarged=WEIGHT, final=SIDE,
            min_confidence=SHARE, whole=choice("auto", "always", "never"),
        ),
        "verification": target(
            mode=choice("auto", "serve", "csv"), val_fraction=BELOW_1, port=PORT, tolerate=several(Text())
        ),
        "augment": target(
            copies=whole(1, 100_000), size=SIDE, seed=SEED, working=real(1, 16),
            operations=Branch({"flip": UNCHANGED, **OPERATIONS, "none": UNCHANGED}),
        ),
        "resize": target(size=SIDE),
        "formats": Branch({"jpg": IMAGE_FORMAT, "png": IMAGE_FORMAT, "tar": SHARDS, "parquet": SHARDS}),
    },
    "report": {
        "study": TEXT_OR_NULL, "storage": TEXT_OR_NULL, "select": TEXT_OR_NULL, "sweeps": TEXT, "outputs": TEXT,
        "ready": TEXT, "plotly": SWITCH,
    },
    "train": {
        "seed": SEED, "epochs": POSITIVE, "minutes": real(0, 1e6, null=True, beyond=True),
        "eval_every": Value(Either((Whole(1), Choice(("auto",))))), "patience": whole(1, null=True),
        "samples": whole(1, null=True), "budget_unit": choice("seconds", "cpu_seconds", "samples", null=True),
        "resume": Value(Either((Switch(), Text())), null=True), "trust": TRUST,
        "objective": several(Text(), least=1), "study": TEXT_OR_NULL,
        "rungs": several(Real(0, 1, beyond=True, below=True), rising=True),
        "trial": Branch(
            {"number": whole(0, null=True), "attempt": whole(0), "study": TEXT_OR_NULL, "storage": TEXT_OR_NULL}
        ),
    },
}
