"""Studies to report of, made in milliseconds: real Optuna, run folders with drawn grids, nothing trained."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from tests.fake_sweeps import Project

from catsweep.data.ready import CARD, IMAGES, MANIFEST, ReadySet, Row, digest, write_manifest
from catsweep.grids import grid, rows, save_png
from catsweep.metrics.judge import Judged
from catsweep.metrics.scores import MetricCard
from catsweep.report.exported import Exported
from steady.study import meta

HOSTILE = "</script><b onerror=alert(1)>&\"'|`$x_1$\ud800"  # in parameters, messages and tracebacks
BEGIN = 1_795_690_000.0  # Unix time of the first start
SPACE: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "optimizer.momentum": FloatDistribution(0.0, 0.99),  # only with sgd
    "model.latent_size": IntDistribution(8, 256, log=True),
    "loss": CategoricalDistribution(["mse", "l1", HOSTILE]),
    "model.aggregate_prior": CategoricalDistribution([True, False]),
}
CARD_OF_FID = {
    "metric": "fid", "extractor": "efficientnet_lite0", "weights_sha256": "5" * 64, "resize": "bilinear to 224",
    "dtype": "float32", "reference_digest": "a" * 64, "reference_size": 90, "samples": 64, "seed": 0,
    "settings": {}, "versions": {"torch": "2.13.0"},
}  # fmt: skip


class Lab(Project):
    """A project's folder, and how to fill it."""

    @property
    def ready(self) -> Path:
        return self.folder / "data/ready"

    def study(
        self,
        name: str,
        names: Sequence[str] = ("val/fid", "val/ssim"),
        directions: Sequence[Literal["minimize", "maximize"]] = ("minimize", "maximize"),
        **contract: Any,
    ) -> optuna.Study:
        """An empty study, begun as a sweep of ours begins one."""
        confirms = name.endswith(".confirm")
        study = self.create_study(name, directions, None if confirms else names, name.removesuffix(".confirm"))
        if not confirms:
            begun = {
                "objective": list(names), "space": {key: "choice(…)" for key in SPACE},
                "fixed": {"hparams_search": "vae_optuna", "study": name, "minutes": "1.5"},
                "config": {"minutes": 1.5, "epochs": 1000, "seed": 0},
                "facts": {"data": "no such digest", "cards": {"val/fid": CARD_OF_FID}}, **contract,
            }  # fmt: skip
            study.set_user_attr("contract", begun)
        return study

    def run(self, study: str, number: int | str, values: Sequence[float], names: Sequence[str]) -> Path:
        """The folder of a finished run, with grids of images whose brightness tells them apart."""
        run = self.outputs / study / str(number)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"objective: {json.dumps(list(names))}\ntrials: 9\n")
        scores = dict(zip(names, values, strict=True))
        cards = {"val/fid": CARD_OF_FID, "val/kid": CARD_OF_FID | {"metric": "kid"}}
        told = {"scores": scores, "cards": cards, "checkpoint": "best", "epoch": 10}
        (run / "metrics.json").write_text(json.dumps(told))
        command = ["src/train.py", "-m", "hparams_search=vae_optuna", f"study={study}", "hydra.sweeper.n_jobs=2"]
        (run / "provenance.json").write_text(json.dumps({"command": command, "git": {"commit": "c0ffee" * 6 + "abcd"}}))
        for epoch in (5, 10, 15):
            save_png(run / f"samples/epoch_{epoch:04d}.png", grid(images(16, shade=20 + epoch)))
        save_png(run / "reconstructions/epoch_0010.png", rows(images(8), images(8, shade=90)))
        return run

    def judge(self, study: str, number: int | str, fid: float, judge: str = "dinov2", **own: float) -> None:
        """What the judge leaves in the folder of a run, and more scores of the run itself: `recall=0.5`."""
        run = self.outputs / study / str(number)
        told = json.loads((run / "metrics.json").read_text())
        told["scores"] |= {f"val/{name}": value for name, value in own.items()}
        (run / "metrics.json").write_text(json.dumps(told))
        card = MetricCard.from_dict(CARD_OF_FID | {"extractor": judge})
        scores = {"judge/fid": fid, "judge/copied": 0.0625}
        Judged(scores, dict.fromkeys(scores, card), {"judge/fid": 42.5, "val/fid": 5.5}, told["scores"]).write(run)

    def set(self, n: int = 40) -> str:
        """A ready set of squares; its digest."""
        folder, pixels = self.ready / "squares-32", images(n, shade=200)
        folder.mkdir(parents=True)
        np.save(folder / IMAGES, pixels)
        splits = ["train"] * (n - 4) + ["val"] * 4
        made = [Row(i, f"{i}.jpg", "", str(i), split, True, "", 32, 32, "") for i, split in enumerate(splits)]
        write_manifest(folder / MANIFEST, made)
        card = {"name": "squares", "n": n, "size": 32, "digest": digest(pixels, splits)}
        (folder / CARD).write_text(json.dumps(card))
        return ReadySet.open(folder).digest


def images(n: int, shade: int = 60, side: int = 32) -> np.ndarray:
    """`n` grey squares with a dark pattern, uint8 (n, side, side, 3); none is white at its edge."""
    made = np.full((n, side, side, 3), shade, np.uint8)
    for i in range(n):
        made[i, 4 + i % 8 : 20, 4:20] = (i * 7) % 200
    return made


def add(
    study: optuna.Study,
    ended: Sequence[float] | TrialState,
    params: Mapping[str, Any] | None = None,
    kind: str = "",
    slot: int = 0,
    start: float = 0.0,
    seconds: float = 60.0,
    **noted: Any,
) -> int:
    """One more trial.

    Args:
        study: gets it.
        ended: its values, or the state it ended in without any.
        params: of it, from `SPACE`.
        kind: its outcome.
        slot: where it ran; -1 for a trial whose time nobody noted.
        start: seconds after `BEGIN`.
        seconds: that it ran.
        noted: names in `steady.study.meta`, in small letters.
    """
    state, values = (ended, None) if isinstance(ended, TrialState) else (TrialState.COMPLETE, list(ended))
    told = {getattr(meta, key.upper()): value for key, value in noted.items()}
    if kind:
        told[meta.OUTCOME] = kind
    if slot >= 0:
        stay = {"slot": slot, "start": BEGIN + start, "end": BEGIN + start + seconds}
        told[meta.RUNS] = [*noted.get("runs", []), stay]
    params = dict(params or {})
    trial = create_trial(
        state=state, values=values, params=params, distributions={key: SPACE[key] for key in params}, user_attrs=told
    )
    study.add_trial(trial)
    return len(study.get_trials(deepcopy=False)) - 1


def params_of(number: int) -> dict[str, Any]:
    """Parameters of all kinds, the same for the same number; one of them conditional."""
    rng = np.random.default_rng(number)
    drawn: dict[str, Any] = {
        "optimizer": ["adam", "sgd"][number % 2],
        "optimizer.lr": float(10 ** rng.uniform(-4, -1)),
        "model.latent_size": int(rng.integers(8, 257)),
        "loss": ["mse", "l1", HOSTILE][number % 3],
        "model.aggregate_prior": bool(number % 2),
    }
    return drawn | ({"optimizer.momentum": float(rng.uniform(0, 0.99))} if number % 2 else {})


def populate(lab: Lab, study: optuna.Study, n: int, names: Sequence[str] = ("val/fid", "val/ssim")) -> None:
    """Trials of all ends in two slots: every third finished, with its run folder."""
    for number in range(n):
        at: dict[str, Any] = {"slot": number % 2, "start": 60.0 * (number // 2), "seconds": 58.0}
        if number % 3 == 0:
            values = [200 - number + 30 * (number % 4), 0.3 + 0.01 * (number % 7), 0.1 * number][: len(names)]
            add(study, values, params_of(number), "complete", attempt=0, **at)
            lab.run(study.study_name, number, values, names)
        elif number % 3 == 1:
            add(study, TrialState.PRUNED, params_of(number), "pruned", message="given up after 12% of its budget", **at)
        else:
            trace = f"Traceback (most recent call last):\n  {HOSTILE}\nValueError: {HOSTILE}"
            add(
                study, TrialState.FAIL, params_of(number), "failed", message=f"ValueError: {HOSTILE}",
                traceback=trace, log="outputs", **at,
            )  # fmt: skip


def strangers(lab: Lab, name: str, words: Sequence[str]) -> Path:
    """The folder of a study that somebody else made, and put words of his own wherever there are any."""
    card = CARD_OF_FID | {"extractor": words[0], "resize": words[1], "settings": dict.fromkeys(words, words[2])}
    study = lab.study(
        name,
        ("val/fid", words[3]),
        space={word: word for word in words},
        fixed={word: word for word in words},
        facts={"data": words[0], "cards": dict.fromkeys(words, card)},
    )
    choices = CategoricalDistribution(["l1", *words])
    for i, word in enumerate(words):
        named = {f"x.{word}": FloatDistribution(0, 1)} if i % 16 == 0 else {}  # each is a chart
        told = {meta.MESSAGE: f"{word}\n{word}", meta.TRACEBACK: f"x\n{word}"}
        trial = create_trial(
            state=TrialState.FAIL if i % 8 else TrialState.COMPLETE, values=None if i % 8 else [1.0, 0.5],
            params={"loss": word, **dict.fromkeys(named, 0.5)}, distributions={"loss": choices, **named},
            user_attrs=told | {meta.OUTCOME: word},
        )  # fmt: skip
        # Not when they were added: on a busy machine the ruler of the timeline would have other marks.
        trial.datetime_start, trial.datetime_complete = (datetime.fromtimestamp(BEGIN + i + more) for more in (0, 1))
        study.add_trial(trial)
    scores, seconds = {words[3]: 1.0}, dict.fromkeys(words, 60.0)
    Exported(0, words[0], words[1], words[2], scores, scores, 600.0, seconds, seconds).write(lab.sweeps / name)
    return lab.sweeps / name
