"""Types and ranges of the keys in `conf/`: of each option of a group, and of each command's own file.

`conf/GROUP/OPTION.yaml` and `conf/COMMAND.yaml` name their schema in their defaults, and have the values and what they
mean. An option of the user's own needs none; one that starts from ours has the kinds of its keys.
"""

from typing import Any

from catsweep.schema.kinds import PORT, SEEDS, Choice, Either, Node, Real, Several, Switch, Text, Trust, Whole
from catsweep.schema.nodes import Branch, Value, Values

PIXELS = 8192  # of a side, more than any photo's that is trained on
WEIGHT = Real(0, 1e6)
SHARE = Real(0, 1)
SEED = Whole(0, SEEDS)
RATE = Real(0, 1e30)  # of float32; 0 trains nothing, and the largest diverge, which a run says itself


def target(**keys: Any) -> Branch:
    """A node that is built."""
    return Branch({"_target_": Value(Text()), **keys})


def part(**keys: Any) -> Branch:
    """A node that makes a partial function."""
    return target(_partial_=Value(Switch()), **keys)


def _text(null: bool = True) -> Value:
    return Value(Text(), null=null)


def _images(reader: Branch, **more: Any) -> Branch:
    """A data module of photos from a reader."""
    return target(source=_text(), **more, reader=reader, size=Value(Whole(1, PIXELS)), root=Value(Text()), **_batches())


def _batches(held_out: bool = True) -> dict[str, Any]:
    return {
        "batch_size": Value(Whole(1)),
        **({"val_fraction": Value(Real(0, 1, below=True))} if held_out else {}),
        "flip": Value(Switch()),
        "seed": Value(SEED),
    }


def operation(changes: bool = True) -> Branch:
    """An augmentation, see `catsweep.data.operations`."""
    amount = {"range": Values(Several(Real(0, 100), length=2))} if changes else {}
    return target(probability=Value(SHARE), **amount)


def _trainer(**keys: Any) -> Branch:
    names = ("auto", "16", "16-mixed", "16-true", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true")
    return target(
        accelerator=Value(Choice(("auto", "cpu", "gpu", "cuda", "mps"))),
        devices=Value(Either((Whole(1, 1024), Choice(("auto",)), Several(Whole(0, 1023), least=1)))),
        **keys,
        precision=Value(Choice(names)),
        threads=Value(Whole(1, 4096), null=True),
    )


def _metrics(**extractor: Any) -> Branch:
    return part(
        extractor=target(
            backend=Value(Choice(("auto", "onnx", "torch"))),
            threads=Value(Whole(1, 4096), null=True),
            cache_root=_text(),
            **extractor,
        ),
        scores=Branch(),
        cache_root=_text(),
        samples=Value(Whole(2)),
        rung_samples=Value(Whole(2)),
        seed=Value(SEED),
        reference=Value(Choice(("all", "train", "val"))),
        batch_size=Value(Whole(1)),
    )


def _judge(**extractor: Any) -> Branch:
    """A judge: a network in a file and its preprocessing."""
    return part(
        required=Value(Switch()),
        extractor=target(
            file=Value(Text()),
            sha256=_text(),
            name=_text(),
            size=Value(Whole(1, PIXELS), null=True),
            mean=Values(Several(Real(-1e6, 1e6), length=3)),
            std=Values(Several(Real(0, 1e6, beyond=True), length=3)),
            interpolation=Value(Choice(("bicubic", "bilinear"))),
            pool=Value(Choice(("cls", "mean", "none"))),
            threads=Value(Whole(1, 4096), null=True),
            **extractor,
        ),
        cache_root=_text(),
        samples=Value(Whole(2)),
        seed=Value(SEED),
        reference=Value(Choice(("all", "train", "val"))),
        batch_size=Value(Whole(1)),
    )


def _optimizer(converted: bool = True, **keys: Any) -> Branch:
    how = {"_convert_": Value(Choice(("none", "partial", "object", "all")))} if converted else {}
    return part(**how, lr=Value(RATE), **keys)


def _betas() -> Values:
    return Values(Several(Real(0, 1, below=True), length=2))


def _network() -> dict[str, Any]:
    return {
        "image_size": Value(Whole(1, PIXELS)),
        "latent_size": Value(Whole(1, 65536)),
        "halvings": Value(Whole(1, 12)),
        "channels": Value(Whole(1, 65536)),
        "max_channels": Value(Whole(1, 65536)),
        "block": Branch(),
        "normalization": Branch(),
    }


def _recipe(**more: Any) -> Branch:
    """Customary values for a model, or with a discriminator."""
    return Branch({"lr": Value(RATE), "betas": _betas(), "lion_lr": Value(RATE), "sgd_lr": Value(RATE), **more})


def _model(**keys: Any) -> dict[str, Any]:
    """A model and its recipe."""
    return {"model": target(**keys), "recipe": _recipe()}


def _policy() -> Values:
    return Values(Several(Choice(("color", "translation", "cutout"))))


def _every_discriminator() -> dict[str, Any]:
    return {
        "image_size": Value(Whole(1, PIXELS)),
        "channels": Value(Whole(1, 65536)),
        "normalization": Branch(),
        "activation": part(negative_slope=Value(Real(0, 1000))),
        "spectral_norm": Value(Switch()),
    }


def _discriminator(**keys: Any) -> dict[str, Any]:
    """A discriminator and its recipe."""
    recipe = _recipe(
        discriminator_lr=Value(RATE),
        batch_size=Value(Whole(1)),
        ema_decay=Value(Real(0, 1, below=True)),
        threads=Value(Whole(1, 4096), null=True),
        augment=_policy(),
    )
    return {"discriminator": target(**_every_discriminator(), **keys), "recipe": recipe}


def _projected() -> dict[str, Any]:
    return {
        "network": Value(Choice(("efficientnet_lite1", "efficientnet_lite0"))),
        "strides": Values(Several(Whole(2, 16), least=1)),
        "head_channels": Value(Whole(1, 65536)),
        "min_side": Value(Whole(1, 512), null=True),  # a batch of more would fill the memory
        "pixels": Value(Switch()),
    }


def _adversarial() -> Branch:
    return target(
        weight=Value(WEIGHT),
        start=Value(SHARE),
        similarity=Value(SHARE),
        discriminator=part(**_every_discriminator(), **_projected()),
        loss=target(),
        optimizer=_optimizer(betas=_betas(), fused=Value(Switch())),
        augment=target(policy=_policy()),
    )


GROUPS: dict[str, Any] = {
    "activation_leaky_relu": part(negative_slope=Value(Real(0, 1000))),
    "background_keep": target(remover=Branch(null=True)),
    "background_remove": target(
        fill=Value(Choice(("white", "black", "mean", "blur", "transparent"))),
        min_foreground=Value(SHARE),
        max_foreground=Value(SHARE),
        max_unsure=Value(SHARE),
    ),
    "background_remover_grabcut": target(
        side=Value(Whole(16, PIXELS)), rounds=Value(Whole(1, 1000)), margin=Value(Real(0, 0.25))
    ),
    "background_remover_onnx": target(
        file=Value(Text()),
        size=Value(Whole(1, PIXELS), null=True),
        mean=Values(Several(Real(-1e6, 1e6), length=3)),
        std=Values(Several(Real(0, 1e6, beyond=True), length=3)),
        output=Value(Choice(("plain", "minmax", "logits"))),
    ),
    "background_remover_rembg": target(model=_text()),
    "data_augment_mild": Branch(
        {name: operation() for name in ("bright_dim", "bright_light", "contrast", "saturation", "crop_random")}
    ),
    "data_demo_cats": _images(target(n=Value(Whole(1, 1_000_000)), seed=Value(SEED))),
    "data_hub_cats": _images(
        target(source=_text(), split=Value(Text()), column=_text(), min_side=Value(Whole(0, PIXELS)))
    ),
    "data_kaggle_cats": _images(
        target(
            folder=_text(),
            download=Value(Switch()),
            face=Branch({name: Values(Several(SHARE, length=2)) for name in ("left_eye", "right_eye", "mouth")}),
            min_eye_distance=Value(Real(0, PIXELS)),
            min_inside=Value(SHARE),
            standard=Value(Whole(8, PIXELS)),
        ),
        download=Value(Switch()),
    ),
    "data_photos": _images(target(folder=_text(), min_side=Value(Whole(0, PIXELS)))),
    "data_ready": target(source=_text(), size=Value(Whole(1, PIXELS)), **_batches(held_out=False)),
    "depth": Branch({"halvings": Value(Whole(1, 12))}),
    "discriminator_plain": _discriminator(
        halvings=Value(Whole(1, 12)), max_channels=Value(Whole(1, 65536)), down=Branch()
    ),
    "discriminator_projected": _discriminator(**_projected()),
    "hparams_search": {"study": _text(), "trials": Value(Whole(1))},
    "judge": _judge(output=_text()),
    "judge_none": Branch({"_target_": _text()}),
    "judge_torch": _judge(),
    "logger_wandb": target(
        project=Value(Text()),
        **{key: _text() for key in ("entity", "group", "name", "job_type")},
        tags=Values(Several(Text())),
        watch=Value(Choice(("gradients", "parameters", "all")), null=True),
        system=Value(Switch()),
        mode=Value(Choice(("auto", "online", "offline", "disabled"))),
        save_dir=Value(Text()),
    ),
    "loss_perceptual": Branch(
        {
            "reconstruction": part(
                features=Value(SHARE), network=Value(Choice(("efficientnet_lite1", "efficientnet_lite0")))
            )
        }
    ),
    "loss_wgan_gp": Branch({"adversarial": target(gradient_penalty=Value(WEIGHT))}),
    "metrics_default": _metrics(),
    "metrics_inception": Branch({"extractor": target(weights=Value(Text()), download=Value(Switch()))}),
    "model_dcgan": {  # its recipe comes with the discriminator
        "model": target(
            **_network(),
            activation=Branch(),
            discriminator=Branch(),
            adversarial_loss=Branch(),
            optimizer=Branch(),
            schedule=Branch(),
            generator_lr=Value(RATE),
            discriminator_lr=Value(RATE),
            ema_decay=Value(Real(0, 1, below=True)),
            r1_gamma=Value(WEIGHT),
            r1_every=Value(Whole(1)),
            augment=target(policy=_policy()),
        )
    },
    "model_vae": _model(
        **_network(),
        activation=Branch(),
        reconstruction_loss=Branch(),
        beta=Value(WEIGHT),
        beta_warmup=Value(SHARE),
        free_bits=Value(WEIGHT),
        aggregate_prior=Value(Switch()),
        ema_decay=Value(Real(0, 1, below=True)),
        optimizer=Branch(),
        schedule=Branch(),
        adversarial=_adversarial(),
    ),
    "model_vae_pretrained": _model(
        _convert_=Value(Choice(("none", "partial", "object", "all"))),
        image_size=Value(Whole(1, PIXELS)),
        source=_text(),
        subfolder=_text(),
        revision=_text(),
        architecture=Branch(null=True),
        train=Value(Choice(("prior", "decoder"))),
        couplings=Value(Whole(1, 1024)),
        hidden=Value(Whole(1, 65536)),
        reconstruction_loss=Branch(),
        optimizer=Branch(),
        schedule=Branch(),
    ),
    "normalization_group": part(group_size=Value(Whole(1, 65536))),
    "optimizer_adam": _optimizer(betas=_betas(), fused=Value(Switch())),
    "optimizer_adamw": _optimizer(betas=_betas(), weight_decay=Value(WEIGHT), fused=Value(Switch())),
    "optimizer_lion": _optimizer(betas=_betas(), weight_decay=Value(WEIGHT), foreach=Value(Switch())),
    "optimizer_radam": _optimizer(betas=_betas(), foreach=Value(Switch())),
    "optimizer_rmsprop": _optimizer(converted=False, alpha=Value(Real(0, 1, below=True))),
    "optimizer_sgd": _optimizer(
        converted=False, momentum=Value(Real(0, 1, below=True)), nesterov=Value(Switch()), fused=Value(Switch())
    ),
    "schedule_constant": part(warmup=Value(SHARE)),
    "schedule_falling": part(warmup=Value(SHARE), final=Value(SHARE)),
    "trainer": _trainer(),
    "trainer_ddp": _trainer(strategy=Value(Text()), sync_batchnorm=Value(Switch())),
    "width": Branch({"channels": Value(Whole(1, 65536)), "max_channels": Value(Whole(1, 65536))}),
}


AUTO = "auto"  # of eval_every, as in `catsweep.training.validation`
MEASURES = ("brightness", "contrast", "warmth", "colour", "detail")  # as in `catsweep.generate.interpolation`
FASTEST = 50  # frames per second; browsers slow a GIF down that is faster
LARGEST = 16  # times the images' side


def _trust() -> Values:
    return Values(Several(Trust()), null=True)


def _format(**keys: Any) -> Branch:
    return target(suffix=Value(Choice((".jpg", ".png"))), **keys)


COMMANDS: dict[str, Any] = {
    "best_model": {
        "study": _text(),
        "select": _text(null=False),
        "sweeps": _text(null=False),
        "outputs": _text(null=False),
        "out": _text(null=False),
    },
    "demo": {"bundle": _text(), "run": _text(), "port": Value(PORT), "trust": _trust()},
    "evaluate": {
        "bundle": _text(),
        "exports": _text(null=False),
        "ready": _text(),
        "seed": Value(SEED, null=True),
        "out": Value(Text(ending=".json"), null=True),
        "trust": _trust(),
    },
    "export": {
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
    },
    "generate": {
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
    },
    "prepare": {
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
        "zoom": target(
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
        ),
        "verification": target(
            mode=Value(Choice(("auto", "serve", "csv"))),
            val_fraction=Value(Real(0, 1, below=True)),
            port=Value(PORT),
            tolerate=Values(Several(Text())),
        ),
        "augment": target(
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
        ),
        "resize": target(size=Value(Whole(1, PIXELS))),
        "formats": Branch(
            {
                "jpg": _format(),
                "png": _format(),
                "tar": _format(images=Value(Whole(1))),
                "parquet": _format(images=Value(Whole(1))),
            }
        ),
    },
    "report": {
        "study": _text(),
        "select": _text(),
        "sweeps": _text(null=False),
        "outputs": _text(null=False),
        "ready": _text(null=False),
        "plotly": Value(Switch()),
    },
    "train": {
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
    },
}
