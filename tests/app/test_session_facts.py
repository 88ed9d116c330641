"""What the page says of the model."""

import json
from pathlib import Path

import pytest

from catsweep.app import session
from catsweep.generate.model_source import Source

METRICS = {"scores": {"val/fid": 208.7, "val/ssim": 0.4567}, "cards": {"val/fid": {"extractor": "efficientnet_lite0"}}}


def test_scores_name_their_judge(write, tmp_path: Path) -> None:
    source = Source(write(tmp_path / "a<b>-3"))
    (source.folder / "metrics.json").write_text(json.dumps(METRICS))
    line = session.facts_line(source)
    assert "<span>a&lt;b&gt;-3</span> · <span>32 x 32 pixels</span>" in line
    assert "FID 209 (efficientnet_lite0)" in line
    assert "SSIM 0.457" in line


@pytest.mark.parametrize("text", [None, "no json", "[]", "{}", '{"scores": {"val/fid": "low"}, "cards": {}}'])
def test_a_bundle_that_tells_no_scores_has_none(write, tmp_path: Path, text: str | None) -> None:
    source = Source(write(tmp_path / "a-3"))
    if text is not None:
        (source.folder / "metrics.json").write_text(text)
    assert session.facts_line(source) == "<span>a-3</span> · <span>32 x 32 pixels</span>"


def test_the_command_can_be_typed(write, tmp_path: Path) -> None:
    line = session.command_line(Source(write(tmp_path / "my cats")), 9, 4, 0.75)
    assert line == f"python src/generate.py 'bundle={tmp_path}/my cats' n=9 seed=4 truncation=0.75"
    assert " run=outputs/runs/1 " in session.command_line(Source(Path("outputs/runs/1")), 9, 4, 0.75)
