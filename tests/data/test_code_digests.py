"""Ready sets of before stay valid: keys hold for present code the digest that was recorded for equivalent code.

After a rewrite that changes no image, record it: `PYTHONPATH=src:. .venv/bin/python tests/data/test_code_digests.py`.
After a change of what a source makes, change its digest here to the one that the test names, and record likewise.
"""

import json
from pathlib import Path

import pytest

from catsweep.data import files
from catsweep.data.hub import HubCats
from catsweep.data.sources import DemoCats, KaggleCats, Photos

SOURCES = (DemoCats, Photos, KaggleCats, HubCats)
# Of the keys of ready sets that users have; that of the Hub is two of them.
DIGESTS = {
    "demo_cats": "6e631cf7959815c2",
    "photos": "9bdced9a474e4911",
    "kaggle_cats": "fd676db0719765c2",
    "hub_cats": "9bdced9a474e4911e733b552a66abcf2",
}


@pytest.mark.parametrize("source", SOURCES)
def test_keys_hold_the_recorded_digests(source: type[DemoCats | Photos]) -> None:
    assert files.recorded_digest(*source.code) == DIGESTS[source.name], (
        f"{source.name} has other code: {files.code_digest(*source.code)}. See the top of {Path(__file__).name}."
    )


def test_a_ready_set_of_before_is_opened(tmp_path: Path) -> None:
    """The keys of equal parameters are those of before this code was rewritten."""
    assert DemoCats(1500).key(64) == {"n": 1500, "seed": 0, "code": "6e631cf7959815c2"}
    (tmp_path / "photos").mkdir()
    key = Photos(tmp_path / "photos").key(32)
    assert {"min_side": 32, "code": "9bdced9a474e4911"}.items() <= key.items()


def test_changed_statements_are_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(text: str) -> str:
        (tmp_path / "code.py").write_text(text)
        return files.code_digest("code.py")

    monkeypatch.setattr(files, "SOURCE", tmp_path)
    plain = digest("def f():\n    return 1\n")
    described = '"""Module."""\nimport os\n\n\n# Why.\ndef f():\n    """Docstring\n    of two lines."""\n    return 1\n'
    assert digest(described) == plain
    assert digest("def f():\n    return 2\n") != plain
    assert files.recorded_digest("code.py") == files.code_digest("code.py")


def record(digests: dict[str, str]) -> None:
    """Write what keys hold for the present code, in the place of what they held it for before."""
    path = Path(files.__file__).with_name("code_digests.json")
    kept = {now: held for now, held in files.RECORDED.items() if held not in digests.values()}
    path.write_text(json.dumps(kept | digests, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record({files.code_digest(*source.code): DIGESTS[source.name] for source in SOURCES})
