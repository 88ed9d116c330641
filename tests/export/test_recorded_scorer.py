import json
import shutil

import pytest

from catsweep.errors import ExportError
from catsweep.export.recorded import scorer_of


def test_scorer_is_the_runs(chosen_vae) -> None:
    scorer = scorer_of(chosen_vae, str(chosen_vae.parents[1] / "ready"))
    cards = json.loads((chosen_vae / "metrics.json").read_text())["cards"]
    assert {name: scorer.card(name).to_dict() for name in cards} == cards


def test_scores_taken_in_another_way_are_refused(chosen_vae, tmp_path) -> None:
    run = shutil.copytree(chosen_vae, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    assert config.count("samples: 24") == 1
    (run / "config.yaml").write_text(config.replace("samples: 24", "samples: 32"))
    with pytest.raises(ExportError, match=r"samples: 24 against 32[\s\S]*draws=0"):
        scorer_of(run, str(chosen_vae.parents[1] / "ready"))


def test_run_that_does_not_say_how_it_was_scored(run_of) -> None:
    with pytest.raises(ExportError, match=r"draws=0"):
        scorer_of(run_of())
