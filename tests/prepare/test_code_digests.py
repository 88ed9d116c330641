"""Stage folders of before stay valid: keys hold for present code the digest that was recorded for equivalent code.

After a rewrite that changes no image, record it:
`PYTHONPATH=src:. .venv/bin/python tests/prepare/test_code_digests.py`.
After a change of what a stage makes, change its digest here to the one that the test names, and record likewise.
"""

from pathlib import Path

import pytest
from tests.data.test_code_digests import record

from catsweep.data import files
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
    assert files.recorded_digest(*CODE[name]) == DIGESTS[name], (
        f"The code of {name} is another: {files.code_digest(*CODE[name])}. See the top of {Path(__file__).name}."
    )


if __name__ == "__main__":
    record({files.code_digest(*CODE[name]): DIGESTS[name] for name in CODE})
