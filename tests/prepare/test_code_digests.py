"""Stage folders of before stay valid: keys hold for present code the digest that was recorded for equivalent code.

After a rewrite that changes no image, `PYTHONPATH=src .venv/bin/python tests/prepare/test_code_digests.py` records it.
After a change of what a stage makes, change its digest here to the one that the test names, and record likewise.
"""

import json
from pathlib import Path

import pytest

from catsweep.prepare import exporters, stage
from catsweep.prepare.stages.augment import Augment
from catsweep.prepare.stages.background import Background
from catsweep.prepare.stages.duplicates import Duplicates
from catsweep.prepare.stages.original import Original
from catsweep.prepare.stages.resize import Resize
from catsweep.prepare.stages.verify import Verify
from catsweep.prepare.stages.zoom import Zoom

STAGES = (Original, Duplicates, Background, Zoom, Verify, Augment, Resize)
CODE = {one.name: (*one.code, *stage.CORE) for one in STAGES} | {"export": exporters.CODE}
# Of the keys in folders that users have. That of exports is three sha256.
DIGESTS = {
    "original": "a48969b67ecdcaf6",
    "duplicates": "a9950dcd429d807a",
    "background": "3174cde04365d480",
    "zoom": "a921efb3df6bfad5",
    "verify": "aa93fdeb3150b6ae",
    "augment": "4283b14b19188a5b",
    "resize": "0afcb5ade05135e1",
    "export": "0a90518ce27808c1a616ff0332c4b85edbb9a8a3c138d272322daf86d6f5ccc5"
    "ddcefd7659b01a007b90a1e2cf348d54a3f8094e20dd804e774a0e884ad362f6"
    "2716fbc0d552dba2c42dc6b00a225636ed6a7245e281c55ac2b4ef3ee553f55f",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_keys_hold_the_recorded_digests(name: str) -> None:
    assert stage.recorded_digest(*CODE[name]) == DIGESTS[name], (
        f"The code of {name} is another: {stage.code_digest(*CODE[name])}. See the top of {Path(__file__).name}."
    )


def test_changed_statements_are_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(text: str) -> str:
        (tmp_path / "code.py").write_text(text)
        return stage.code_digest("code.py")

    monkeypatch.setattr(stage, "_SOURCE", tmp_path)
    plain = digest("def f():\n    return 1\n")
    assert (
        digest('"""Module."""\nimport os\n\n\n# Why.\ndef f():\n    """Docstring\n    of two lines."""\n    return 1\n')
        == plain
    )
    assert digest("def f():\n    return 2\n") != plain
    assert stage.recorded_digest("code.py") == stage.code_digest("code.py")


if __name__ == "__main__":
    recorded = {stage.code_digest(*CODE[name]): DIGESTS[name] for name in CODE}
    text = json.dumps(recorded, indent=2) + "\n"
    Path(stage.__file__).with_name("code_digests.json").write_text(text, encoding="utf-8")
