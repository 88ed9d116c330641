"""Makes `tests/before/place/`: a study, two runs, a bundle and a ready set as catsweep 0.1.0 wrote them.

    python tests/before/make.py        # two minutes; writes place/ and expected.json anew

`tests/before/test_before.py` unpacks them and goes on with them, so that what people have keeps working. They were made
at commit 3c79b37 and are not to be made again: what a later version writes is not what was there before. To keep a
later format as well, check out its commit and write to another folder.

Only text is committed, and only what a test reads: databases as SQL, other binary files as the base64 of xz. What was
of the machine is taken out: absolute paths, and the digest of cats that another processor may draw a little otherwise.
"""

import base64
import fnmatch
import hashlib
import json
import lzma
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLACE = HERE / "place"
EXPECTED = HERE / "expected.json"

SMALL = (
    "data.size=32", "data.batch_size=16", "depth=shallow", "depth.halvings=3", "width=narrow", "width.channels=1",
    "model.latent_size=2", "metrics.samples=16", "metrics.rung_samples=16", "metrics/judge=none", "eval_every=1",
    "minutes=null", "trainer.threads=1", "trainer.precision=32-true", "logger=none",
)  # fmt: skip
READY = ("data=ready", "data.source=data/ready/cats-32")
VAE = (*READY, *SMALL, "model=vae", "model.ema_decay=0.9")
DCGAN = ("data=demo_cats", "data.reader.n=20", *SMALL, "model=dcgan")
RUNS = {"vae": VAE, "dcgan": DCGAN}
# Three trials are known beforehand: the configuration as it stands, one that diverges, and one more.
SWEEP = (
    "-m", "hparams_search=vae_optuna", *READY, *SMALL, "study=small", "epochs=2", "rungs=[0.5]", "seed=0",
    "model.adversarial.weight=0.0", "activation=silu", "optimizer=adamw", "schedule=constant", "model.beta=1.0",
    "model.ema_decay=0.9", "loss=choice(l1,mse)", "optimizer.lr=choice(1e-3,2e-3,3e-3,4e-3,1e30)",
    "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=1",
    "hydra.sweeper.confirm={top: 1, seeds: 1}", "hydra.sweeper.enqueue=[{loss: l1, optimizer.lr: 1e30}, "
    "{loss: l1, optimizer.lr: 2e-3}]",
)  # fmt: skip
GENERATE = ("n=4", "seed=1")

# What is kept of the files, by patterns in which * also takes /.
KEPT = (
    "data/ready/cats-32/.catsweep.json", "data/ready/cats-32/card.json", "data/ready/cats-32/images.npy",
    "data/ready/cats-32/manifest.csv",
    "outputs/runs/*/checkpoints/*.ckpt", "outputs/small/0/checkpoints/best.ckpt",
    "outputs/*/config.yaml", "outputs/*/metrics.json", "outputs/*/provenance.json", "outputs/*/train.log",
    "outputs/runs/*/overrides.yaml", "outputs/small/.catsweep-study.json", "outputs/small/*/progress.json",
    "outputs/small/*/output.log", "outputs/small/optimization_results.yaml",
    "outputs/small/0/reconstructions/epoch_0002.png",
    "outputs/exports/*",
    "sweeps/small/study.db", "sweeps/small/leaderboard.csv", "sweeps/small/confirmation.json",
    "plain/study.journal", "plain/out/.catsweep-study.json", "plain/sweeps/*",
)  # fmt: skip
LEFT_OUT = ("*/.hydra/config.yaml", "*/preflight/*", "*.lock")
TEXT = {".json", ".yaml", ".csv", ".log", ".md", ".journal"}
PACKED = ".xz.b64"


def unpack(place: Path) -> None:
    """Put everything into a folder, as it was before it was packed."""
    for path in sorted(path for path in PLACE.rglob("*") if path.is_file()):
        target = place / path.relative_to(PLACE)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(PACKED):
            content = lzma.decompress(base64.b64decode(path.read_bytes()))
            target.with_name(path.name.removesuffix(PACKED)).write_bytes(content)
        elif path.suffix == ".sql":
            with closing(sqlite3.connect(target.with_suffix(".db"))) as database:
                database.executescript(path.read_text(encoding="utf-8"))
        else:
            shutil.copyfile(path, target)


def numbers(log: str, epoch: str) -> dict[str, float]:
    """What the line of an epoch says in a `train.log`: `epoch 2/2  train/loss 0.5` is {"train/loss": 0.5}."""
    [line] = re.findall(rf"epoch {epoch}  (.*)", log)[-1:]
    return {name: float(value) for name, value in re.findall(r"(\S+/\S+) (\S+)", line)}


def weights(run: Path) -> "np.ndarray":
    """All numbers of a model as its last checkpoint has them: float32 (N,)."""
    import numpy as np
    import torch

    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return np.concatenate([value.float().numpy().ravel() for value in state.values()])


def pack(place: Path) -> None:
    """Keep of a folder what the tests need."""
    shutil.rmtree(PLACE, ignore_errors=True)
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        name = path.relative_to(place).as_posix()
        if not _matches(name, KEPT) or _matches(name, LEFT_OUT):
            continue
        target = PLACE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                target.with_suffix(".sql").write_text(_scrubbed("\n".join(database.iterdump()), place) + "\n")
        elif path.suffix in TEXT:
            target.write_text(_scrubbed(path.read_text(encoding="utf-8"), place), encoding="utf-8")
        else:  # Python too: it is not for the linters
            packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            target.with_name(target.name + PACKED).write_bytes(base64.encodebytes(packed))


def main() -> None:
    """Run the commands in a folder of their own, pack what they wrote, and write down how it goes on."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made).resolve()
        for name in ("src", "conf"):
            (place / name).symlink_to(ROOT / name)
        typed(place, "src/prepare.py", "name=cats", "size=32", "data.reader.n=20")
        for name, words in RUNS.items():
            typed(place, "src/train.py", *words, "epochs=1", f"hydra.run.dir=outputs/runs/{name}")
        typed(place, "src/train.py", *SWEEP, "trials=3")
        typed(place, "src/export.py", "run=outputs/runs/vae", "draws=2", "metrics/judge=none")
        (place / "plain").mkdir()
        for path in (HERE / "app").glob("*.*"):
            shutil.copy(path, place / "plain")
        typed(place / "plain", "task.py", "-m", "failing=1")
        record = place / "outputs/runs/dcgan/provenance.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"data_digest": None}, indent=2) + "\n")
        _shrink(place / "outputs/exports/runs-vae")
        pack(place)
        for name in ("src", "conf"):
            (place / name).unlink()
        EXPECTED.write_text(json.dumps(_gone_on(), indent=1) + "\n")


def typed(place: Path, *words: str) -> str:
    """What a command prints that must not fail."""
    done = subprocess.run(
        [sys.executable, *words], cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _gone_on() -> dict[str, Any]:
    """What comes of the packed ones when the version that made them goes on with them."""
    with tempfile.TemporaryDirectory() as again:
        place = Path(again).resolve()
        unpack(place)
        train = str(ROOT / "src/train.py")
        found: dict[str, Any] = {}
        page = typed(place, str(ROOT / "src/generate.py"), "bundle=outputs/exports/runs-vae", *GENERATE).strip()
        found["page"] = base64.b64encode((place / page).read_bytes()).decode()
        for name, words in RUNS.items():
            run = place / "outputs/runs" / name
            typed(place, train, *words, "epochs=2", f"resume=outputs/runs/{name}")
            scores = json.loads((run / "metrics.json").read_text())["scores"]
            packed = base64.b64encode(lzma.compress(weights(run).tobytes())).decode()
            epoch = numbers((run / "train.log").read_text(), "2/2")
            found[name] = {"epoch": epoch, "scores": scores, "weights": packed}
        typed(place, train, *SWEEP, "trials=4")
        found["trial"] = json.loads((place / "outputs/small/3/metrics.json").read_text())["scores"]
        return found


def _shrink(bundle: Path) -> None:
    """Make the pictures of a bundle as small as thumbnails, as if they had been exported so."""
    from PIL import Image

    record = json.loads((bundle / "provenance.json").read_text())
    for path in bundle.glob("*.png"):
        with Image.open(path) as image:
            image.resize((8, 8)).save(path)
        content = path.read_bytes()
        record["export"]["files"][path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _scrubbed(text: str, place: Path) -> str:
    for own in (place, ROOT):
        text = text.replace(f"{own}/", "").replace(str(own), ".")
    text = text.replace(str(Path.home()), "~")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "machine", text.replace(boot, "boot"))


if __name__ == "__main__":
    main()
