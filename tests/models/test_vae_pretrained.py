"""A pretrained VAE, stood in for by a tiny one with random weights that the test saves itself."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import hydra
import pytest
import pytorch_lightning as pl
import torch
from diffusers import AutoencoderKL
from huggingface_hub import constants
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from catsweep import configuration
from catsweep.errors import ConfigError, DataError
from catsweep.export import graphs, weights
from catsweep.losses.reconstruction import mse
from catsweep.models import vae_pretrained
from catsweep.models.generator import LatentEncoder, evaluating
from catsweep.models.vae_pretrained import PretrainedVAE
from catsweep.runs import load_run
from catsweep.training import fit

ROOT = Path(__file__).resolve().parents[2]
SCALE, SHIFT = 0.5, 0.25
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody else has trained."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(3)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=SCALE, shift_factor=SHIFT,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def make(source):
    def build(train="prior", **changes) -> PretrainedVAE:
        torch.manual_seed(0)
        arguments = {
            "image_size": 16, "source": str(source), "subfolder": None, "revision": None, "architecture": None,
            "train": train, "couplings": 2, "hidden": 8, "reconstruction_loss": mse,
            "optimizer": partial(torch.optim.Adam, lr=1e-2), "schedule": lambda step, total: 1.0,
        }  # fmt: skip
        return PretrainedVAE(**{**arguments, **changes})

    return build


@pytest.fixture
def loaded(make):
    """With the weights of the source, as a run has it from its first step."""

    def build(**arguments) -> PretrainedVAE:
        model = make(**arguments)
        model.on_fit_start()
        return model.eval()

    return build


def test_it_encodes_reconstructs_and_draws_as_the_source_does(loaded, source):
    model, images, latents = loaded(), torch.rand(2, 3, 16, 16), torch.randn(3, 64)
    original = AutoencoderKL.from_pretrained(source, low_cpu_mem_usage=False).eval()
    assert isinstance(model, LatentEncoder)
    assert (model.latent_size, model.prior.shape) == (64, (4, 4, 4))
    with torch.no_grad():
        posterior = original.encode(2 * images - 1).latent_dist
        mean, deviation = model.encode(images)
        torch.testing.assert_close(mean, SCALE * (posterior.mean - SHIFT))
        torch.testing.assert_close(deviation, SCALE * posterior.std)
        again = (original.decode(posterior.mean).sample + 1) / 2
        torch.testing.assert_close(model.reconstruct(images), again.clamp(0, 1))
        drawn = (original.decode(model.prior(latents) / SCALE + SHIFT).sample + 1) / 2
        torch.testing.assert_close(model.decode(latents), drawn.clamp(0, 1))
    assert model.decode(latents).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("train", ["prior", "decoder"])
def test_latents_of_photos_draw_their_reconstructions(loaded, train):
    model, images = loaded(train=train), torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        model.prior.update(*model.encode(images))
        for parameter in model.prior.parameters():
            parameter.normal_(0, 0.2)
        torch.testing.assert_close(model.decode(model.latents_of(images)), model.reconstruct(images), atol=1e-4, rtol=0)


def configured(compose, source: Path) -> DictConfig:
    """A run of seconds; the fixture's own sizes are those of the other models."""
    cfg = compose()
    with initialize_config_dir(str(ROOT / "conf")):
        cfg.model = hydra.compose("train", ["model=vae_pretrained", f"model.source={source}", "data.size=32"]).model
    cfg.model.couplings = 2
    cfg.epochs, cfg.metrics.samples, cfg.metrics.rung_samples = 1, 24, 16
    return cfg


def changed(model, before) -> set[str]:
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    return {".".join(name.split(".")[: 2 if name.startswith("autoencoder") else 1]) for name in moved}


@pytest.mark.trains
@pytest.mark.parametrize(
    ("train", "learns"), [("prior", {"prior"}), ("decoder", {"autoencoder.decoder", "autoencoder.post_quant_conv"})]
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns_only_what_it_should_and_starts_from_the_source(make, batches, fit, source, train, learns, precision):
    model, losses = make(train=train), []
    theirs = AutoencoderKL.from_pretrained(source, low_cpu_mem_usage=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    before |= {f"autoencoder.{name}": value.clone() for name, value in theirs.named_parameters()}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, model, outputs, batch, index):
            losses.append(outputs["loss"].item())

    data = batches(1) * 12
    trainer = fit(model, data, batches(1, seed=1), [Watch()], precision=precision)
    assert changed(model, before) == learns
    assert losses[-1] < losses[0]
    assert trainer.callback_metrics["val/loss"].isfinite()
    assert not torch.equal(model.prior.colour, torch.eye(64)), "the prior must be fitted in either case"
    assert all(value.dtype == torch.float32 for value in model.state_dict().values() if value.is_floating_point())


def test_the_gradient_lives_on_where_a_pixel_left_the_range(loaded, monkeypatch):
    model = loaded(train="decoder")
    given = []
    model.reconstruction_loss = lambda drawn, real: given.append(drawn) or mse(drawn, real)
    beyond = torch.full((1, 3, 16, 16), 1.5, requires_grad=True)
    monkeypatch.setattr(model, "draw", lambda scaled: beyond)
    model.loss(torch.full((1, 3, 16, 16), 0.25), None).backward()
    assert (given[0] == 1).all()
    torch.testing.assert_close(beyond.grad, torch.full_like(beyond, 1.5))  # 2 (1 - 0.25)


@pytest.mark.trains
def test_a_run_is_scored_resumed_rebuilt_and_exported_without_its_source(compose, source, tmp_path, monkeypatch):
    passing, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(source, passing)
    cfg = configured(compose, passing)
    fit.run(cfg, run)
    scores = json.loads((run / "metrics.json").read_text())["scores"]
    assert {"val/fid", "val/ssim", "val/kid"} <= scores.keys()
    written = OmegaConf.load(run / "config.yaml").model.architecture
    assert list(written.block_out_channels) == [4, 4, 8]
    shutil.rmtree(passing)

    model, _ = load_run(run)
    theirs = AutoencoderKL.from_pretrained(source, low_cpu_mem_usage=False)
    for name, value in theirs.encoder.state_dict().items():
        assert torch.equal(model.autoencoder.encoder.state_dict()[name], value)
    weights.save(model, run, {})
    again = weights.load(run)
    latents, photos = torch.randn(3, model.latent_size), torch.rand(2, 3, 32, 32)
    with evaluating(again), evaluating(model):
        torch.testing.assert_close(again.decode(latents), model.decode(latents))
        torch.testing.assert_close(again.reconstruct(photos), model.reconstruct(photos))

    monkeypatch.setattr(vae_pretrained, "load_autoencoder", lambda *_: pytest.fail("a resumed run has its weights"))
    cfg.resume, cfg.epochs = str(run), 2
    fit.run(cfg, run)
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2


def test_onnx_draws_the_same_from_any_batch(make, tmp_path):
    small = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    model = make(architecture=small | {"block_out_channels": [4, 8], "norm_num_groups": 2}).eval()
    with torch.no_grad():
        model.prior.update(*model.encode(torch.rand(8, 3, 16, 16)))
        for parameter in model.prior.parameters():
            parameter.normal_(0, 0.2)
    graphs.write_onnx(model, tmp_path / "generator.onnx")
    graphs.write_reconstructor(model, tmp_path / "reconstructor.onnx")
    # 70: diffusers' own upsampling takes another way from 64 images on.
    assert graphs.difference(model, tmp_path / "generator.onnx", (1, 7, 70)) < 1e-4
    assert graphs.difference(model, tmp_path / "reconstructor.onnx", (1, 70)) < 1e-4


def test_a_size_that_the_vae_cannot_halve_is_refused(make):
    with pytest.raises(ConfigError, match=r"reduces images by 4, so data\.size must be a multiple of it; got 18"):
        make(image_size=18)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_latent_grows_with_the_image(make, size):
    assert make(image_size=size).latent_size == 4 * (size // 4) ** 2


def test_no_source_says_which_there_are():
    with pytest.raises(ConfigError, match=r"model\.source=stabilityai/sd-vae-ft-mse \(335 MB, needs a network once\)"):
        vae_pretrained.read_architecture(None)


def test_without_a_network_it_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"in somebody/cats, but: .*a network the first time.*or a local folder"):
        vae_pretrained.read_architecture("somebody/cats")


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(DataError, match=r"pip install 'catsweep\[pretrained\]'"):
        vae_pretrained.build_autoencoder({})


def damaged(source: Path, folder: Path, **config) -> Path:
    shutil.copytree(source, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def test_pickled_weights_are_not_taken(source, tmp_path):
    folder = damaged(source, tmp_path / "pickled")
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(DataError, match=r"no weights \(\*\.safetensors\)"):
        vae_pretrained.read_architecture(str(folder))
    with pytest.raises(DataError, match="safetensors"):
        vae_pretrained.load_autoencoder(
            vae_pretrained.build_autoencoder(vae_pretrained.read_architecture(str(source))), str(folder)
        )


def test_another_kind_of_model_is_refused_and_a_pipelines_vae_is_found(source, tmp_path):
    folder = damaged(source, tmp_path / "other", _class_name="AutoencoderTiny")
    with pytest.raises(ConfigError, match=r"expects an AutoencoderKL; .*is a AutoencoderTiny.*model\.subfolder=vae"):
        vae_pretrained.read_architecture(str(folder))
    shutil.copytree(source, folder / "vae")
    assert vae_pretrained.read_architecture(str(folder), "vae") == vae_pretrained.read_architecture(str(source))


@pytest.mark.parametrize("fault", ["missing", "shape", "torn"])
def test_weights_that_are_not_whole_are_refused(source, tmp_path, fault):
    folder = damaged(source, tmp_path / "torn")
    state = load_file(folder / WEIGHTS)
    name = "decoder.conv_in.weight"
    if fault == "torn":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    else:
        state = {key: value for key, value in state.items() if fault != "missing" or key != name}
        save_file(state | ({name: torch.zeros(1)} if fault == "shape" else {}), folder / WEIGHTS)
    with pytest.raises(DataError, match=r"Expected the config\.json and the safetensors weights"):
        vae_pretrained.load_autoencoder(
            vae_pretrained.build_autoencoder(vae_pretrained.read_architecture(str(source))), str(folder)
        )


def test_impossible_architectures_are_refused_and_strange_entries_left_out(source):
    known = vae_pretrained.read_architecture(str(source))
    vae_pretrained.build_autoencoder(known | {"of_a_later_version": 1})
    with pytest.raises(ConfigError, match=r"model\.architecture does not describe"):
        vae_pretrained.build_autoencoder(known | {"norm_num_groups": 3})


def test_a_configuration_is_completed_once(compose, source):
    cfg = configured(compose, source)
    configuration.complete(cfg)
    assert OmegaConf.to_container(cfg.model.architecture) == vae_pretrained.read_architecture(str(source))
    cfg.model.source = "somewhere/else"
    configuration.complete(cfg)
    assert cfg.model.architecture.block_out_channels == [4, 4, 8]
