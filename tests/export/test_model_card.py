"""The page of a bundle for runs of other kinds than those that `test_bundle` exports."""

import json
import re

import pytest
import yaml
from huggingface_hub.repocard_data import ModelCardData
from tests.markup import NAMES, Seen, on_one_line, rendered

from catsweep.export import model_card
from catsweep.export.recorded import FinishedRun
from catsweep.metrics.judge import Judged
from catsweep.metrics.scores import MetricCard
from steady.printing import readable

CARD = {
    "metric": "fid", "extractor": "inception", "resize": "none", "dtype": "float32", "reference_size": 1660,
    "samples": 512, "seed": 0, "settings": {},
}  # fmt: skip
NEAREST = CARD | {"metric": "nearest", "settings": {"train": 1494, "held_out": 166}}


@pytest.fixture
def page(tmp_path):
    """Composes the page of a run with some records."""
    (tmp_path / "generator.onnx").write_bytes(b"0" * 1_500_000)

    def compose(config=None, choice=None, metrics=None, git=None, judged=None) -> str:
        scores = {"val/fid": 41.25, "val/nearest": 1.5}
        cards = {"val/fid": CARD, "val/nearest": NEAREST}
        metrics = {"scores": scores, "cards": cards, "checkpoint": "best", "epoch": 3} | (metrics or {})
        provenance = {"seed": 1, "git": git or {"commit": "c" * 40}, "data_digest": "d" * 64}
        provenance["export"] = {"max_difference": {"generator.onnx": 1e-7}, "checked_batches": [1, 7]}
        config = {"model": {"_target_": "catsweep.models.dcgan.DCGAN"}} | (config or {})
        finished = FinishedRun(tmp_path / "runs" / "x", config, metrics, provenance, choice)
        if judged is not None:
            (tmp_path / "metrics.json").write_text(json.dumps({"scores": judged.recorded}))
            judged.write(tmp_path)
        facts = {"latent_size": 8, "image_size": 64, "parameters": 1234567}
        return model_card.compose(finished, tmp_path, facts, metrics, provenance)

    return compose


def front(page: str) -> ModelCardData:
    return ModelCardData(**yaml.safe_load(page.split("---\n")[1]))


def test_facts_of_the_model(page) -> None:
    text = page({"data": {"source": "/mnt/disk/cats-64"}})
    assert re.search("DCGAN, 64 . 64 pixels, 1,234,567 weights, 1.5 MB as ONNX", text)
    assert "trained it on 1,494 photos, and 166 held out (cats-64)." in text
    assert "digest `dddddddddddd`" in text
    assert "| `generator.onnx` | `latents` float32 (N, 8)" in text
    assert "/mnt" not in text


def test_nothing_is_left_of_the_template(page) -> None:
    assert not [sign for sign in ("{{", "{%", "None", "Undefined") if sign in page()]


def test_each_extractor_has_its_warning(page) -> None:
    assert "Its FID is taken in features of `inception`, from 512 samples" in page()
    lite = {"cards": {"val/fid": CARD | {"extractor": "efficientnet_lite0"}}}
    assert "not of Inception, and from 512 samples. It is never\n  comparable with the FID of papers" in page(
        None, None, lite
    )


def test_pretrained_model_is_named(page) -> None:
    model = {"_target_": "catsweep.models.vae_pretrained.PretrainedVAE", "source": "user/a-vae"}
    demo = {"reader": {"_target_": "catsweep.data.sources.DemoCats"}}
    text = page({"model": model, "data": demo})
    assert (front(text).base_model, front(text).license) == ("user/a-vae", "unknown")
    assert "It starts from the pretrained `user/a-vae`" in text
    assert "it depends on that of the photos and of user/a-vae" in text
    local = page({"model": model | {"source": "/mnt/disk/vae"}})
    assert front(local).base_model is None
    assert "/mnt" not in local


def test_interval_stands_beside_its_score(page) -> None:
    interval = {"low": 40.5, "high": 43.0, "level": 0.95, "draws": 8, "method": "…"}
    text = page(metrics={"intervals": {"val/fid": interval}})
    assert "| FID | lower | 41.25 | 40.5 to 43 | distance" in text
    assert "| nearest | near 1 | 1.5 |  | distance" in text
    assert "| FID | lower | 41.25 | distance" in page()


def judged(judge: str = "dinov2") -> Judged:
    card = MetricCard(**CARD | {"metric": "fid", "extractor": judge, "weights_sha256": "e" * 64,
                                "reference_digest": "f" * 64, "samples": 256})  # fmt: skip
    cards = {"judge/fid": card, "judge/copied": card, "judge/<b>": card}
    scores = {"judge/fid": 95.25, "judge/copied": 0.0625, "judge/<b>": 1.0}
    return Judged(scores, cards, {"judge/fid": 42.5}, {"val/fid": 41.25})


def test_both_scores_stand_on_the_page_with_their_cards_and_what_photos_get(page) -> None:
    choice = {"study": "cats", "trial": 7, "judge": {"sentence": "The judge (dinov2) prefers trial 3."}}
    text = page(choice=choice, judged=judged())
    assert "It was chosen by features of `inception`" in text
    assert "| FID | lower | 95.25 | 42.5 | distance" in text
    assert "| copied | near 0.05 | 0.0625 |  | share" in text
    assert "| FID | dinov2 | none | float32 | 1660 | 256 | 0 |" in text
    assert "The judge (dinov2) prefers trial 3." in text
    assert "judge/" not in text  # what a stranger's judge.json has besides is not shown
    names = [one.metric_name for one in front(text).eval_results]
    assert names == ["FID (inception)", "nearest (inception)", "FID (dinov2)", "copied (dinov2)"]


def test_a_page_without_a_judge_says_how_to_ask_one(page) -> None:
    assert (
        "No independent network has judged it. With catsweep and the photos: `make judge`, and export it again."
        in page()
    )


def test_recall_and_coverage_stand_beside_fid(page) -> None:
    choice = {
        "study": "cats", "trial": 7, "finished_trials": 9, "objectives": [{"name": "val/fid", "direction": "minimize"}],
        "pareto_set": [{"trial": 7, "values": {"val/fid": 41.25}, "beside": {"val/recall": 0.25, "judge/fid": 95.5}},
                       {"trial": 3, "values": {"val/fid": 42.5}}],
    }  # fmt: skip
    scores = {"val/fid": 41.25, "val/recall": 0.25, "val/coverage": 0.125}
    text = page(choice=choice, metrics={"scores": scores})
    assert "| trial | val/fid ↓ | val/recall ↑ | judge/fid ↓ |" in text
    assert "| 7, this one | 41.25 | 0.25 | 95.5 |\n| 3 | 42.5 | ? | ? |\n" in text
    assert "| coverage | higher | 0.125 | share of real images" in text


@pytest.mark.security
@pytest.mark.parametrize("name", [name for name in NAMES if name.strip()])
def test_a_strangers_judge_is_text_in_the_page(page, name: str) -> None:
    def read(name: str) -> tuple[dict, Seen]:
        choice = {"study": "cats", "trial": 7, "judge": {"sentence": name}}
        _, front, body = re.split(r"^---\n", page(choice=choice, judged=judged(name)), maxsplit=2, flags=re.MULTILINE)
        return yaml.safe_load(front), rendered(body)

    (values, seen), (_, wanted) = read(name), read("word")
    assert [tag for tag in seen.tags if tag != "code"] == [tag for tag in wanted.tags if tag != "code"]
    assert len(values["model-index"][0]["results"][0]["metrics"]) == 4


def test_score_of_ones_own_is_shown_by_its_name(page) -> None:
    text = page(metrics={"scores": {"val/whiskers": 0.5}, "cards": {}})
    assert "| val/whiskers |  | 0.5 |  |" in text
    (result,) = front(text).eval_results
    assert (result.metric_type, result.metric_name, result.metric_value) == ("whiskers", "val/whiskers (?)", 0.5)


def test_where_it_comes_from(page) -> None:
    assert "A single run, not chosen from a study." in page()
    by_number = page({"trial": {"study": "cats", "number": 7}})
    assert "Trial 7 of the study `cats`, exported by its number." in by_number
    choice = {
        "study": "cats", "trial": 7, "selected_by": "the knee", "finished_trials": 9, "remark": "One is missing.",
        "objectives": [{"name": "val/fid", "direction": "minimize"}], "params": {"lr": 0.00123456, "path": "/mnt/x/y"},
        "pareto_set": [{"trial": 7, "values": {"val/fid": 41.25}}], "seeds": {"sentence": "Nobody knows."},
    }  # fmt: skip
    text = page(choice=choice)
    for words in (
        "it was chosen out of 9 finished trials",
        "Trial 7 of the study `cats`: the knee. Nobody knows.",
        "One is missing.",
        "Of 9 finished trials, 1 is Pareto-optimal",
        "| trial | val/fid ↓ |\n| --- | ---: |\n| 7, this one | 41.25 |\n",
        "`lr=0.001235`, `path=…/y`.",
    ):
        assert words in text


def test_older_choice_says_less(page) -> None:
    text = page(choice={"study": "cats", "trial": 7, "selected_by": "the lowest val/fid"})
    assert "Trial 7 of the study `cats`: the lowest val/fid." in text


def test_changed_code_is_told(page) -> None:
    assert "commit `cccccccccccc` |" in page()
    assert "`cccccccccccc`, with changes |" in page(git={"commit": "c" * 40, "dirty": True})
    git = {"commit": "c" * 40, "dirty": True, "diff": "+ x"}
    assert "`cccccccccccc`, with changes (the diff is in `provenance.json`) |" in page(git=git)
    assert "commit unknown" in page(git={"commit": None, "reason": "not a git repository"})


def test_names_that_yaml_would_misread_stay_names(page, tmp_path) -> None:
    text = page(choice={"study": "2026 #1, no", "trial": 7, "selected_by": "x"})
    assert front(text).model_name == "2026 #1, no-7"
    assert json.dumps(front(text).tags)


@pytest.mark.security
@pytest.mark.parametrize("name", [name for name in NAMES if name.strip()])
def test_a_strangers_words_are_text_in_the_page_and_in_its_front_matter(page, name: str) -> None:
    def read(name: str, study: str = "cats") -> tuple[dict, Seen]:
        choice = {
            "study": study, "trial": 7, "selected_by": name, "finished_trials": 9, "remark": name,
            "objectives": [{"name": name, "direction": "minimize"}], "params": {name: name},
            "pareto_set": [{"trial": 7, "values": {name: 41.25}}], "seeds": {"sentence": name},
        }  # fmt: skip
        card = CARD | dict.fromkeys(("extractor", "resize", "dtype"), name)
        metrics = {"scores": {"val/fid": 41.25, name: 0.5}, "cards": {"val/fid": card, name: card}}
        config = {"model": {"_target_": f"x.{name}", "source": name}, "data": {"source": f"sets/{name}"}}
        _, front, body = re.split(r"^---\n", page(config, choice, metrics), maxsplit=2, flags=re.MULTILINE)
        return yaml.safe_load(front), rendered(body)

    def shape(seen: Seen) -> list[str]:
        return [tag for tag in seen.tags if tag != "code"]

    (values, seen), (_, wanted) = read(name, "a [b](c) {{7}}"), read("word")
    assert shape(seen) == shape(wanted)
    assert [on_one_line(cell) for cell in seen.texts["td"]].count(on_one_line(name)) >= 8
    (model,) = values["model-index"]
    assert model["name"] == "a [b](c) {{7}}-7"
    assert [one["type"] for one in model["results"][0]["metrics"]] == ["fid", readable(name).removeprefix("val/")]
