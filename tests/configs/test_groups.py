"""Every option of every group, composed through conf/train.yaml and built; and every search space, value by value.

What the options of the small groups do by themselves is in test_choices.py. A new option is tested by being there.
"""

import math
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import hydra
import optuna
import pytest
import pytorch_lightning as pl
import torch
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DDPStrategy

from catsweep import configuration, runs, schema
from catsweep.data.ready import open_or_build
from catsweep.data.sources import KaggleCats
from catsweep.errors import ConfigError, MetricError
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import Scorer
from catsweep.metrics.scores import score
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating
from catsweep.synthetic.renderer import render
from catsweep.tracking import loggers
from catsweep.tracking.loggers import RunLogger
from catsweep.tracking.trackio_logger import TrackioLogger
from catsweep.training import trainer
from hydra_plugins.steady_sweeper.config import PRUNERS
from steady.propose.checks import read_all
from steady.propose.space import Space

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
MODELS = ("vae", "dcgan")
KIND = {"vae": "reconstruction", "dcgan": "adversarial"}
TINY = ("data.size=32", "depth=shallow", "width.channels=4", "width.max_channels=16", "model.latent_size=8")
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
OF_TRAINING = [group for group in GROUPS if group not in ("hparams_search", "background")]  # what a run is made of


# A pretrained VAE of somebody else, as its config.json says; its weights come only when it is trained.
PRETRAINED = (
    "model.source=somebody/cats",
    "+model.architecture={block_out_channels:[4,8],norm_num_groups:2,"
    "down_block_types:[DownEncoderBlock2D,DownEncoderBlock2D],up_block_types:[UpDecoderBlock2D,UpDecoderBlock2D]}",
)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def every(*groups: str) -> list[tuple[str, str]]:
    return [(group, option) for group in groups for option in options(group)]


SEARCHES = options("hparams_search")
ONLY_ADVERSARIAL = sorted({*configuration.losses_for("adversarial")} - {*configuration.losses_for("reconstruction")})
ONLY_RECONSTRUCTION = sorted({*configuration.losses_for("reconstruction")} - {*configuration.losses_for("adversarial")})


@pytest.fixture(autouse=True)
def _hydra_as_it_was() -> Iterator[None]:
    before = HydraConfig.instance().cfg
    runs.register()  # as src/train.py does
    yield
    HydraConfig.instance().cfg = before


def composed(*overrides: str, command: str = "train") -> DictConfig:
    """What the command sees; interpolations of Hydra's own values resolve, as they do in a run."""
    with initialize_config_dir(str(CONF)):
        cfg = hydra.compose(command, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def plain(cfg: DictConfig) -> object:
    """Every value of ours, resolved: an interpolation that leads nowhere raises."""
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def suited(group: str, option: str) -> list[str]:
    """The option, with the model it is for, and with what it needs."""
    adversarial = group == "discriminator" or (group == "loss" and option in ONLY_ADVERSARIAL)
    more = ["model=dcgan"] if adversarial else []
    return [f"{group}={option}", *more, *(PRETRAINED if option == "vae_pretrained" else [])]


def searched(search: str) -> list[str]:
    """The search, with what it needs, and the smallest networks it may have."""
    tiny = PRETRAINED if search == "vae_pretrained_optuna" else ("width.channels=4", "width.max_channels=16")
    return [f"hparams_search={search}", *tiny]


def built(cfg: DictConfig) -> pl.LightningModule:
    model: pl.LightningModule = instantiate(cfg.model)
    return model


def drawn(model: pl.LightningModule) -> torch.Tensor:
    assert isinstance(model, Generator)
    with evaluating(model):
        return model.decode(draw_latents(2, model.latent_size, seed=0))


def test_the_groups_are_those_that_are_promised() -> None:
    promised = "data model depth width activation optimizer loss trainer metrics logger hparams_search"
    assert {*promised.split(), "background", "block", "discriminator", "normalization", "schedule"} == {*GROUPS}


def test_every_group_but_the_search_has_a_default() -> None:
    composed()
    chosen = HydraConfig.get().runtime.choices
    assert chosen["hparams_search"] is chosen["discriminator"] is None  # what the model needs of the latter it chooses
    assert all(chosen[group] in options(group) for group in OF_TRAINING if group != "discriminator")
    composed(command="prepare")
    assert HydraConfig.get().runtime.choices["background"] == "keep"


@pytest.mark.parametrize("option", options("background"))
@pytest.mark.parametrize("remover", options("background/remover"))
def test_every_background_and_remover_composes_for_preparation(option: str, remover: str) -> None:
    more = [f"background/remover={remover}"] if option == "remove" else []
    cfg = composed(f"background={option}", *more, command="prepare")
    assert (cfg.background.remover is None) == (option == "keep")
    plain(cfg)


@pytest.mark.parametrize(("group", "option"), every(*OF_TRAINING))
def test_every_option_composes_into_a_configuration_that_resolves_and_passes(group: str, option: str) -> None:
    cfg = composed(*suited(group, option))
    assert HydraConfig.get().runtime.choices[group] == option
    configuration.check(cfg)
    plain(cfg)


def test_a_discriminator_brings_its_recipe_and_every_key_of_it_can_be_overridden() -> None:
    plain, projected = composed("model=dcgan"), composed("model=dcgan", "discriminator=projected")
    assert plain.loss.adversarial._target_.endswith("BinaryCrossEntropy")
    assert (plain.data.batch_size, plain.optimizer.lr, list(plain.optimizer.betas)) == (64, 2e-4, [0.5, 0.999])
    assert list(plain.model.augment.policy) == []
    assert projected.loss.adversarial._target_.endswith("RelativisticPairs")
    assert (plain.model.generator_lr, plain.model.discriminator_lr) == (2e-4, 2e-4)
    assert (projected.model.generator_lr, projected.model.discriminator_lr) == (2e-3, 4e-4)
    assert (plain.model.ema_decay, projected.model.ema_decay) == (0.995, 0.998)
    assert projected.data.batch_size == 16
    assert (plain.trainer.threads, projected.trainer.threads) == (None, 1)
    assert composed("model=dcgan", "discriminator=projected", "trainer.threads=2").trainer.threads == 2
    assert list(projected.optimizer.betas) == [0.0, 0.99]
    assert list(projected.model.augment.policy) == ["translation"]
    own = composed(
        "discriminator=projected", "loss=bce", "model=dcgan", "data=photos", "data.batch_size=8", "optimizer=radam",
        "optimizer.lr=1e-3", "optimizer.betas=[0.1,0.2]", "model.augment.policy=[cutout]",
    )  # fmt: skip
    assert own.loss.adversarial._target_.endswith("BinaryCrossEntropy")
    assert (own.data.batch_size, own.model.generator_lr, list(own.optimizer.betas)) == (8, 1e-3, [0.1, 0.2])
    assert list(own.model.augment.policy) == ["cutout"]
    assert composed("hparams_search=dcgan_optuna", "discriminator=projected").data.batch_size == 16


def test_preparation_and_a_model_without_a_recipe_for_it_have_batches_of_64() -> None:
    assert composed("model=vae").data.batch_size == 64
    assert composed("data=photos", command="prepare").data.batch_size == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model=vae", "loss=mse"],
            "takes nothing from discriminator, so discriminator=projected would change nothing",
        ),
        (["model=dcgan", "loss=wgan_gp"], "heads of discriminator=projected are normalized over the batch"),
        (["model=dcgan", "discriminator.network=efficientnet_lite0"], "metric's extractor"),
    ],
)
def test_a_projected_discriminator_is_refused_where_it_makes_no_sense(words: list[str], said: str) -> None:
    cfg = composed("discriminator=projected", *words)
    with pytest.raises(ConfigError, match=said):
        configuration.check(cfg)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=dcgan", "loss=mse"], "DCGAN learns from an adversarial loss"),
        (["model=dcgan", "discriminator=projected", "loss=l1"], "DCGAN learns from an adversarial loss"),
        (["model=vae", "loss=hinge"], "VAE learns from a reconstruction loss"),
        (["model=vae", "discriminator=projected"], r"takes nothing from discriminator.*model\.adversarial\.weight=6"),
    ],
)
def test_what_the_model_cannot_use_is_told_before_what_it_leaves_without_a_value(words: list[str], said: str) -> None:
    """The command line asks for faults first, and a loss of another kind leaves an interpolation that leads nowhere."""
    cfg = composed(*words)
    assert schema.faults(cfg, final=True) == []
    with pytest.raises(ConfigError, match=said):
        configuration.check(cfg)


class _Batches:
    """Four images, once."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        yield torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator)


LEARNING = [
    (model, group, option)
    for group, option in every("activation", "normalization", "block", "loss", "optimizer", "schedule")
    for model in MODELS
    if group != "loss" or option in configuration.losses_for(KIND[model])
] + [("dcgan", group, option) for group, option in every("discriminator")]


@pytest.mark.trains
@pytest.mark.parametrize(("model", "group", "option"), LEARNING)
def test_a_model_with_the_option_draws_and_takes_a_step(model: str, group: str, option: str) -> None:
    torch.manual_seed(0)
    network = built(composed(f"model={model}", *TINY, f"{group}={option}"))
    before = {name: value.clone() for name, value in network.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, _Batches(), _Batches())
    moved = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(before[name], value)}
    assert moved >= ({"encoder", "decoder"} if model == "vae" else {"generator", "discriminator", "averaged"})
    assert all(torch.isfinite(value).all() for value in network.parameters())
    images = drawn(network)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("depth", options("depth"))
@pytest.mark.parametrize("model", MODELS)
def test_every_depth_fits_every_size(model: str, depth: str, size: int) -> None:
    network = built(composed(f"model={model}", *TINY, f"depth={depth}", f"data.size={size}"))
    images = drawn(network)
    assert images.shape == (2, 3, size, size)
    if isinstance(network, Reconstructor):
        with evaluating(network):
            assert network.reconstruct(images).shape == images.shape


@pytest.mark.parametrize("width", options("width"))
@pytest.mark.parametrize("model", MODELS)
def test_every_width_is_that_of_the_models_first_stage(model: str, width: str) -> None:
    cfg = composed(f"model={model}", f"width={width}", "depth=shallow", "data.size=32")
    network = built(cfg)
    encoder = network.get_submodule("encoder" if model == "vae" else "discriminator")
    first = next(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.out_channels == cfg.width.channels


@pytest.mark.parametrize("loss", ONLY_ADVERSARIAL)
def test_a_vae_refuses_an_adversarial_loss_and_names_those_it_takes(loss: str) -> None:
    _refused("vae", loss)


@pytest.mark.parametrize("loss", ONLY_RECONSTRUCTION)
def test_a_dcgan_refuses_a_reconstruction_loss_and_names_those_it_takes(loss: str) -> None:
    _refused("dcgan", loss)


def _refused(model: str, loss: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        configuration.check(composed(f"model={model}", f"loss={loss}"))
    named = str(refusal.value).rstrip(".").rpartition("from: ")[2]
    assert named.split(", ") == configuration.losses_for(KIND[model])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos with landmarks beside them, in the Kaggle layout."""
    folder = tmp_path_factory.mktemp("photographs")
    cats = render(8, 96, seed=0)
    for number, (image, landmarks) in enumerate(zip(cats.images, cats.landmarks, strict=True)):
        Image.fromarray(image).save(folder / f"{number}.jpg", quality=95)
        numbers = [9, *landmarks.round().astype(int).ravel().tolist()]
        (folder / f"{number}.jpg.cat").write_text(" ".join(map(str, numbers)))
    return folder


@pytest.mark.parametrize("option", options("data"))
def test_every_source_of_data_gives_batches(option: str, photographs: Path, tmp_path: Path) -> None:
    own = ["data.reader.n=8"] if option == "demo_cats" else [f"data.source={photographs}"]
    if option == "ready":
        own = [f"data.source={open_or_build(KaggleCats(photographs), 32, tmp_path, 0.1).path}"]
    else:
        own.append(f"data.root={tmp_path}")
    cfg = composed(f"data={option}", *own, "data.size=32", "data.batch_size=4", "seed=7")
    data = instantiate(cfg.data)
    data.prepare_data()
    data.setup("fit")
    assert len(data.ready.indices("train")) + len(data.ready.indices("val")) == 8
    assert data.seed == 7
    batch = next(iter(data.train_dataloader()))
    assert (batch.shape, batch.dtype) == ((4, 32, 32, 3), torch.uint8)


class _NoScorer:
    """The trainer's callbacks only keep it, and ask how many photos there are."""

    ready = SimpleNamespace(indices=lambda split: range(100))

    def rung_names(self) -> list[str]:
        return ["val/kid"]


def trainer_of(cfg: DictConfig, folder: Path) -> pl.Trainer:
    # The trainer only keeps the scorer, and this test never scores.
    return trainer.build_trainer(cfg, folder, _NoScorer(), [])  # type: ignore[arg-type]


def test_trainer_cpu_is_one_process(tmp_path: Path) -> None:
    trainer = trainer_of(composed("trainer=cpu", "epochs=3", "eval_every=5"), tmp_path)
    assert (trainer.world_size, trainer.max_epochs, trainer.check_val_every_n_epoch) == (1, 3, 3)
    assert trainer.strategy.root_device.type == "cpu"


def test_trainer_ddp_is_several(tmp_path: Path) -> None:
    cfg = composed("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3")
    trainer = trainer_of(cfg, tmp_path)
    assert trainer.world_size == 3
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]  # a GAN's two networks take turns
    assert composed("trainer=ddp").trainer.devices == 2


def test_trainer_gpu_takes_one_or_says_that_there_is_none(tmp_path: Path) -> None:
    cfg = composed("trainer=gpu")
    if torch.cuda.is_available():
        assert trainer_of(cfg, tmp_path).strategy.root_device.type == "cuda"
    else:
        with pytest.raises(MisconfigurationException, match="No supported gpu backend found"):
            trainer_of(cfg, tmp_path)


@pytest.mark.trains
def test_metrics_default_is_a_scorer_that_works(compose: Callable[..., DictConfig]) -> None:
    cfg = compose("metrics=default")
    data = instantiate(cfg.data)
    scorer = instantiate(cfg.metrics)(ready=data.ready)
    assert isinstance(scorer, Scorer)
    assert (scorer.samples, scorer.rung_samples) == (16, 8)
    model = built(cfg)
    assert isinstance(model, Generator)
    scores, cards = scorer.final(model)
    assert all(math.isfinite(value) for value in scores.values())
    assert {card.extractor for card in cards.values()} == {"efficientnet_lite0", "pixels"}


def test_metrics_inception_wants_its_weights_and_says_how_to_get_them(tmp_path: Path) -> None:
    cfg = composed("metrics=inception", f"metrics.extractor.weights={tmp_path}/absent.pth")
    assert cfg.metrics.samples == composed().metrics.samples
    with pytest.raises(MetricError, match=r"metrics\.extractor\.download=true"):
        instantiate(cfg.metrics)


@pytest.mark.parametrize(
    ("option", "kinds"), [("none", []), ("csv", [CSVLogger]), ("wandb", [RunLogger]), ("trackio", [TrackioLogger])]
)
def test_every_logger_is_built(option: str, kinds: list[type], tmp_path: Path) -> None:
    if option == "trackio":
        pytest.importorskip("trackio")
    own = ["logger.mode=offline", f"logger.save_dir={tmp_path}"] if option == "wandb" else []
    cfg = composed(f"logger={option}", *own)
    assert [type(logger) for logger in loggers.build(cfg.logger, tmp_path / "3", "cats", 3)] == kinds


def test_no_logger_was_forgotten() -> None:
    assert options("logger") == ["csv", "none", "trackio", "wandb"]
    assert options("trainer") == ["cpu", "ddp", "gpu"]
    assert options("metrics") == ["default", "inception"]


@cache
def space(search: str) -> dict[str, object]:
    """The parameters of a search space, as the sweeper reads them."""
    params = composed(f"hparams_search={search}").hydra.sweeper.params
    distributions, fixed, others = create_params_from_overrides([f"{key}={value}" for key, value in params.items()])
    assert not fixed
    assert not others
    return dict(distributions)


def values(distribution: object) -> tuple[object, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high  # type: ignore[attr-defined]


def draws(search: str) -> list[dict[str, object]]:
    """Every value of every parameter at least once; together, for a composition is slow, unless some exclude others."""
    every = {name: values(distribution) for name, distribution in space(search).items()}
    conditions = composed(f"hparams_search={search}").hydra.sweeper.conditions
    if conditions:
        met = {name: dict([condition.split("=")]) for name, condition in conditions.items()}
        return [{**met.get(name, {}), name: value} for name, several in every.items() for value in several]
    most = max(map(len, every.values()))
    return [{name: several[k % len(several)] for name, several in every.items()} for k in range(most)]


DRAWS = [(search, draw) for search in SEARCHES for draw in draws(search)]


@pytest.mark.parametrize(("search", "draw"), DRAWS, ids=[f"{search}-{k}" for k, (search, _) in enumerate(DRAWS)])
def test_every_value_of_a_search_space_composes_and_builds(search: str, draw: dict[str, object]) -> None:
    # The overrides are written as the sweeper writes them. A key that is not there is refused by Hydra.
    cfg = composed(*searched(search), *(f"{key}={value}" for key, value in draw.items()))
    configuration.check(cfg)
    for name, value in draw.items():
        given = HydraConfig.get().runtime.choices.get(name) or OmegaConf.select(cfg, name)
        assert given == OmegaConf.create(f"value: {value}").value
    assert isinstance(built(cfg), Generator)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_space_covers_what_the_issue_names(search: str) -> None:
    names = {"loss", "optimizer"}
    if search != "vae_pretrained_optuna":  # its networks come with their weights
        names |= {"depth", "width"} | ({"activation"} if search != "cats_optuna" else set())
    own = {
        "vae_pretrained_optuna": {"model.train", "model.couplings", "optimizer.lr", "data.batch_size"},
        "vae_optuna": {"optimizer.lr", "data.batch_size", "model.latent_size", "model.beta"},
        "dcgan_optuna": {"model.generator_lr", "model.discriminator_lr", "model.ema_decay", "model.augment.policy"},
        "cats_optuna": {"model", "discriminator", "model.adversarial.weight", "model.generator_lr", "optimizer.lr"},
    }
    assert space(search).keys() >= names | own[search]
    scales = [value for value in space(search).values() if isinstance(value, FloatDistribution)]
    assert scales
    assert all(scale.log for scale in scales)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_begins_with_a_configuration_of_its_space(search: str) -> None:
    cfg = composed(f"hparams_search={search}")
    if search == "cats_optuna":
        assert not cfg.hydra.sweeper.baseline
        return  # with those that are enqueued, see below
    assert cfg.hydra.sweeper.baseline
    assert Space.parse(cfg.hydra.sweeper.params, []).baseline(cfg) is not None


def test_the_search_over_both_models_begins_with_the_best_of_each() -> None:
    cfg = composed("hparams_search=cats_optuna")
    space = Space.parse(cfg.hydra.sweeper.params, [], cfg.hydra.sweeper.conditions)
    first, problems, remarks = read_all(OmegaConf.to_container(cfg.hydra.sweeper.enqueue), space, cfg)  # type: ignore[arg-type]
    assert (problems, remarks) == ([], [])
    assert [one["model"] for one in first] == ["dcgan", "vae", "dcgan"]
    assert (first[0]["width"], first[2]["width"]) == ("medium", "wide")
    assert all(space.whole(one) == one for one in first)  # each is given all that it has
    dcgan, vae = (composed("hparams_search=cats_optuna", *space.overrides(one)) for one in first[:2])
    assert dcgan.discriminator._target_.endswith("ProjectedDiscriminator")
    recipe = dcgan.recipe
    given = (dcgan.model.generator_lr, dcgan.model.discriminator_lr, dcgan.data.batch_size)
    assert given == (recipe.lr, recipe.discriminator_lr, recipe.batch_size)
    assert list(dcgan.model.augment.policy) == list(recipe.augment)
    assert dcgan.loss.adversarial._target_.endswith("RelativisticPairs")
    assert HydraConfig.get().runtime.choices["discriminator"] is None  # of the VAE, which has its own
    assert vae.model.adversarial.weight > 0
    assert list(vae.optimizer.betas) == [0.5, 0.99]
    # What is best of one model alone is where its own search begins.
    for whole, search in ((dcgan, "dcgan_optuna"), (vae, "vae_optuna")):
        own = composed(f"hparams_search={search}")
        for node in ("model", "optimizer", "schedule", "loss", "data", "depth", "width"):
            assert OmegaConf.to_container(whole[node], resolve=True) == OmegaConf.to_container(own[node], resolve=True)


def test_the_search_over_both_models_ends_in_an_hour_with_its_confirmation() -> None:
    cfg = composed("hparams_search=cats_optuna")
    keys = cfg.hydra.sweeper
    assert keys.timeout == 3600
    # On two cores: a whole trial, and the runs of the confirmation; then there is time for the first third of others.
    assert (keys.confirm.top, keys.confirm.seeds) == (1, 2)
    assert (2 + 1 / 3) * 60 * cfg.minutes + 3 * 60 < keys.timeout


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_optimises_scores_that_its_model_has_in_the_right_direction(search: str) -> None:
    each = [["model=dcgan"], ["model=vae", "loss=l1"]] if search == "cats_optuna" else [[]]
    for words in each:
        cfg = composed(*searched(search), "data.size=32", *words)
        taken = SimpleNamespace(val_rows=[0], scores=[score(name) for name in cfg.metrics.scores])
        has = Scorer.names(taken, built(cfg))  # type: ignore[arg-type]
        assert {*cfg.objective} <= {*has}
    directions = list(cfg.hydra.sweeper.direction)
    assert directions == ["maximize" if score(name).better == "higher" else "minimize" for name in cfg.objective]


@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("search", SEARCHES)
def test_a_sweeps_folders_carry_the_name_of_its_study(search: str, data: str) -> None:
    cfg = composed(f"hparams_search={search}", f"data={data}", "hydra.job.num=3")
    study = f"{search.removesuffix('_optuna')}-{data}"
    assert cfg.study == study
    assert cfg.trial.number == 3
    assert cfg.hydra.sweeper.study_name == study
    assert (cfg.hydra.sweep.dir, str(cfg.hydra.sweep.subdir)) == (f"outputs/{study}", "3")
    assert list(cfg.hydra.sweeper.objective) == list(cfg.objective)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_that_the_stock_sweeper_cannot_run_says_so(search: str) -> None:
    text = (CONF / "hparams_search" / f"{search}.yaml").read_text(encoding="utf-8")
    guide = " ".join((ROOT / "docs/how-to/sweep.md").read_text(encoding="utf-8").split())
    named = re.search(r"`hydra/sweeper=optuna` runs (.*?)\.", guide)[1]  # type: ignore[index]
    assert (f"`{search}`" in named) is ("It needs hydra/sweeper=steady" not in text)
    if f"`{search}`" in named:
        assert "OptunaSweeper" in composed(f"hparams_search={search}", "hydra/sweeper=optuna").hydra.sweeper._target_
        return
    with pytest.raises(ConfigCompositionException) as refused:
        composed(f"hparams_search={search}", "hydra/sweeper=optuna")
    told = re.search(r"full_key: hydra\.sweeper\.(\w+)|Group Default for '(hydra/sweeper/pruner)'", str(refused.value))
    key = told[1] or told[2]  # type: ignore[index]
    assert f"knows no {key}" in text
    assert f"`{key}`" in guide


@pytest.mark.parametrize("search", SEARCHES)
def test_another_pruner_can_be_chosen(search: str) -> None:
    for name, node in PRUNERS.items():
        assert composed(f"hparams_search={search}", f"hydra/sweeper/pruner={name}").hydra.sweeper.pruner == node
    for off in ("hydra/sweeper/pruner=none", "hydra.sweeper.pruner=null"):
        assert composed(f"hparams_search={search}", off).hydra.sweeper.pruner is None
    if search == "cats_optuna":
        return  # has none, but promotion
    changed = composed(f"hparams_search={search}", "hydra.sweeper.pruner.percentile=30").hydra.sweeper.pruner
    assert (changed._target_, changed.percentile) == ("optuna.pruners.PercentilePruner", 30)


@pytest.mark.parametrize("search", SEARCHES)
def test_budgets_and_names_of_a_sweep_are_easy_to_change(search: str) -> None:
    cfg = composed(f"hparams_search={search}", "trials=50", "minutes=null", "epochs=7", "study=mine", "seed=5")
    sweeper = cfg.hydra.sweeper
    assert (sweeper.n_trials, sweeper.study_name, sweeper.sampler.seed) == (50, "mine", 5)
    assert (cfg.minutes, cfg.epochs) == (None, 7)
    sampler = hydra.utils.instantiate(sweeper.sampler, _execution_whitelist_="optuna.*")
    assert isinstance(sampler, optuna.samplers.BaseSampler)


ISSUE = """
python src/train.py
python src/train.py model=dcgan activation=silu depth=deep width=wide optimizer=adamw loss=hinge
python src/train.py data=photos data.source=DIR
python src/train.py data=kaggle_cats data.source=../shared/photos/cats
python src/train.py -m hparams_search=vae_optuna  data=kaggle_cats data.source=../shared/photos/cats
python src/train.py -m hparams_search=dcgan_optuna data=kaggle_cats data.source=../shared/photos/cats
python src/generate.py run=outputs/runs n=64
"""
# Of the Makefile's variables only the options around them count. (README and help page: tests/test_readme.py.)
MAKEFILE = re.sub(r"\S*\$\((?!RUN)(?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", "", (ROOT / "Makefile").read_text())
LINES = re.findall(r"^(?:python|\t\$\(RUN\)) src/(\w+)\.py(.*)$", ISSUE + MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(("command", "words"), LINES)
def test_every_command_line_of_the_issue_and_the_makefile_composes(command: str, words: str) -> None:
    cfg = composed(*(word for word in shlex.split(words) if word != "-m"), command=command)
    if command == "train":
        configuration.check(cfg)
        plain(cfg)


def test_the_makefiles_commands_are_among_them() -> None:
    expected = ["prepare", "train", "best_model", "export", "evaluate", "report", "demo"]
    assert [command for command, _ in LINES[-len(expected) :]] == expected
