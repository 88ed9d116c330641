"""Compose the model card of a bundle: a README.md in Hugging Face's format, ready to push.

Front matter after https://huggingface.co/docs/hub/model-cards. Names and scores are those of the run, which may be a
stranger's: the template escapes what is no `Markdown`, and the front matter quotes what is no word.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from catsweep import templates
from catsweep.export import bundle_images
from catsweep.export.recorded import FinishedRun, portable
from catsweep.metrics.judge import BESIDE, FID, NAMES, Judged, better, read_judged
from catsweep.metrics.scores import Nearest, score
from catsweep.runs import CONFIG, JUDGEMENT, PROVENANCE, Bundle
from catsweep.runs import SCORES as RECORD
from steady.printing import Markdown, readable

TEMPLATE = "model_card.md.jinja"
TASK = "unconditional-image-generation"
DEMO = "catsweep.data.sources.DemoCats"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)  # USER/NAME
WORD = re.compile(r"[a-z_-]{2,}", re.ASCII)  # which YAML may take without quotes, unless it means something there

CARD = ("extractor", "resize", "dtype", "reference_size", "samples", "seed")


def compose(finished: FinishedRun, folder: Path, facts: Mapping[str, Any], metrics: Mapping[str, Any],
            provenance: Mapping[str, Any]) -> str:  # fmt: skip
    """Write the page of a bundle, whose other files are all there, as Markdown with front matter.

    `metrics` and `provenance` are its documents, `facts` its `latent_size`, `image_size` and number of `parameters`.
    """
    fid = metrics.get("cards", {}).get(FID, {})
    demo, base, judged = _is_demo(finished), _base(finished), read_judged(folder)
    return templates.environment(Path(__file__).parent, html=False).get_template(TEMPLATE).render(
        front_matter=_yaml(front_matter(finished, metrics, demo, judged)),
        name=finished.name, origin=finished.origin, base=base, demo=demo,
        kind=str((finished.config.get("model") or {}).get("_target_")).rpartition(".")[2],
        size=facts["image_size"], latent_size=facts["latent_size"], parameters=f"{facts['parameters']:,}",
        megabytes=f"{(folder / Bundle.GENERATOR).stat().st_size / 1e6:.2g}",
        photos=photos(finished, metrics, demo), digest=(provenance.get("data_digest") or "unknown")[:12],
        picture_seed=bundle_images.SEED, has_neighbours=(folder / bundle_images.NEIGHBOURS).is_file(),
        scores=[_score(key, value, metrics) for key, value in metrics["scores"].items()],
        has_intervals="intervals" in metrics, extractor=fid.get("extractor", ""), fid_samples=fid.get("samples"),
        judge=_judge(judged, finished), chosen=_chosen(finished),
        git=provenance.get("git") or {}, torch=provenance.get("packages", {}).get("torch", "unknown"),
        seed=provenance.get("seed"), epoch=metrics.get("epoch"), seconds=metrics.get("seconds"),
        files=_files(folder, facts, provenance["export"]["max_difference"]),
        batches=" and ".join(map(str, provenance["export"]["checked_batches"])),
    )  # fmt: skip


def front_matter(
    finished: FinishedRun, metrics: Mapping[str, Any], demo: bool, judged: Judged | None
) -> dict[str, Any]:
    """List what Hugging Face reads, as plain values: tags, licence, and the scores as a model index.

    There is no `datasets`, which would name one of the Hub. The licence is only known of cats that catsweep drew.
    """
    cards, base = metrics.get("cards", {}), _base(finished)
    scores = [(key, value, cards.get(key, {}).get("extractor", "?")) for key, value in metrics["scores"].items()]
    scores += [(key, value, judged.judge if judged else "") for key, value in _opinion(judged).items()]
    results = {
        "task": {"type": TASK},
        "dataset": {"type": "imagefolder", "name": photos(finished, metrics, demo)},
        "metrics": [
            {
                "type": key.removeprefix("val/").removeprefix("judge/"),
                "value": value,
                "name": f"{score(key).title} ({by})",
            }
            for key, value, by in scores
        ],
    }
    return {
        **({"base_model": base} if base and HUB_ID.fullmatch(base) and not Path(base).is_dir() else {}),
        "library_name": "onnx",
        "pipeline_tag": TASK,
        "license": "mit" if demo else "unknown",
        "tags": ["catsweep", "cats", "image-generation", "onnx", "onnxruntime", "safetensors"],
        "model-index": [{"name": finished.name, "results": [results]}],
    }


def photos(finished: FinishedRun, metrics: Mapping[str, Any], demo: bool) -> str:
    """Describe what it learned from: `1,494 photos, and 166 held out (cats-64)`."""
    settings = metrics.get("cards", {}).get(Nearest.key, {}).get("settings", {})
    kind = "cats that catsweep drew itself" if demo else "photos"
    many = f"{settings['train']:,} " if "train" in settings else ""
    held_out = f", and {settings['held_out']:,} held out" if "held_out" in settings else ""
    source = (finished.config.get("data") or {}).get("source")
    return f"{many}{kind}{held_out}" + (f" ({Path(str(source)).name})" if source else "")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types, so its class is Any
    """Quotes what is no plain word: readers of YAML 1.1 and 1.2 differ in what is a number, a date or a switch."""


def _represented(dumper: _Dumper, text: str) -> Any:
    style = None if WORD.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", readable(text), style=style)


_Dumper.add_representer(str, _represented)


def _yaml(values: Mapping[str, Any]) -> Markdown:
    """As front matter: no line of a text of the run stands for itself, and could end it."""
    return Markdown(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")))


def _base(finished: FinishedRun) -> str | None:
    """Name the pretrained model that it started from: its id on the Hub, or a folder."""
    source = (finished.config.get("model") or {}).get("source")
    return None if source is None else str(portable(str(source)))


def _is_demo(finished: FinishedRun) -> bool:
    """Whether catsweep drew all that it learned from."""
    reader = (finished.config.get("data") or {}).get("reader") or {}
    return not _base(finished) and bool(reader.get("_target_") == DEMO)


def _score(key: str, value: float, metrics: Mapping[str, Any]) -> dict[str, Any]:
    interval = metrics.get("intervals", {}).get(key)
    card = metrics.get("cards", {}).get(key)
    return {
        **{field: getattr(score(key), field) for field in ("title", "better", "meaning")},
        "value": _number(value),
        "interval": f"{interval['low']:.4g} to {interval['high']:.4g}" if interval else "",
        "card": [card.get(field, "") for field in CARD] if card else None,
    }


def _opinion(judged: Judged | None) -> dict[str, float]:
    return {key: float(judged.scores[key]) for key in NAMES if key in judged.scores} if judged else {}


def _judge(judged: Judged | None, finished: FinishedRun) -> dict[str, Any] | None:
    """Collect what the judge says: its name, and each score beside that of photos."""
    if judged is None:
        return None
    cards, reals = judged.to_dict(), judged.reference
    return {
        "name": judged.judge,
        "sentence": portable((finished.choice or {}).get("judge") or {}).get("sentence", ""),
        "scores": [
            _score(key, value, cards) | {"reals": _number(reals[key]) if key in reals else ""}
            for key, value in _opinion(judged).items()
        ],
    }


def _chosen(finished: FinishedRun) -> dict[str, Any] | None:
    """Collect what `choice.json` says."""
    if finished.choice is None:
        return None
    choice = portable(finished.choice)
    # Not of `portable`, which shortens what looks like a path: the values are found by the names.
    directions = {one.get("name", "?"): one.get("direction", "") for one in finished.choice.get("objectives") or []}
    front = finished.choice.get("pareto_set") or []
    known = {name for one in front for name in one.get("beside") or {}}
    beside = [name for name in BESIDE if name in known and name not in directions]
    columns = [("values", name) for name in directions] + [("beside", name) for name in beside]
    params = (choice.get("params") or {}).items()
    return {
        "study": choice["study"],
        "trial": choice["trial"],
        "reason": choice.get("selected_by", ""),
        "finished": choice.get("finished_trials"),
        "objectives": [f"{name} {'↑' if way == 'maximize' else '↓'}" for name, way in directions.items()]
        + [f"{name} {better(name)}" for name in beside],
        "front": [
            {"trial": one.get("trial"), "numbers": [_number((one.get(part) or {}).get(name)) for part, name in columns]}
            for one in front
        ],
        "seeds": (choice.get("seeds") or {}).get("sentence", ""),
        "remark": choice.get("remark", ""),
        "params": {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params},
    }


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _files(folder: Path, facts: Mapping[str, Any], differences: Mapping[str, float]) -> dict[str, tuple[Markdown, str]]:
    """List the files that are there: what each is, and how near to the checkpoint it draws."""
    size, latents = facts["image_size"], facts["latent_size"]
    pixels = f"float32 (N, 3, {size}, {size}) in [0, 1]"
    meanings = {
        Bundle.SCRIPT: "draws cats; needs numpy, onnxruntime and Pillow",
        Bundle.GENERATOR: f"`latents` float32 (N, {latents}), standard normal, to `images` {pixels}; any N",
        Bundle.RECONSTRUCTOR: f"`photos` {pixels} to `images`, as it would draw them",
        Bundle.PROGRAM: "the same as `generator.onnx` for torch: `torch.export.load(…).module()(latents)`",
        Bundle.WEIGHTS: "the weights, for the model in `config.yaml`",
        str(CONFIG): "every setting of the run",
        str(RECORD): "scores, how each was taken, and intervals",
        str(JUDGEMENT): "scores by the judge, how each was taken, and what photos get",
        str(PROVENANCE): "code, data, seeds, versions; study and trial; how the export was checked",
        bundle_images.SAMPLES: f"64 images of seed {bundle_images.SEED}",
        bundle_images.INTERPOLATION: "interpolations between images",
        bundle_images.NEIGHBOURS: "drawn images beside the training photos nearest to them",
    }
    return {
        file: (Markdown(meaning), f"{differences[file]:.1e}" if file in differences else "")
        for file, meaning in meanings.items()
        if (folder / file).is_file()
    }
