import zipfile
from pathlib import Path

import pytest

from catsweep.errors import DataError
from catsweep.records import in_short, read_json, require_whole

pytestmark = pytest.mark.security


def test_a_whole_document_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"scores": {"ä": 1}}', encoding="utf-8")
    assert read_json(tmp_path / "metrics.json") == {"scores": {"ä": 1}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"scores": {"val/fid": 4',
        b"\x00" * 40,
        b"\xff\xfe{}",
        b"[1]",
        b"null",
        b"3",
        b'"a"',
        b"[" * 100_000,
        b'{"settings": ' + b"[" * 60 + b"]" * 60 + b"}",
    ],
    ids=[
        "empty",
        "cut",
        "cut later",
        "zeros",
        "no UTF-8",
        "a list",
        "null",
        "a number",
        "a text",
        "too deep",
        "deeper than ours",
    ],
)
def test_what_is_no_document_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(
        DataError, match=r"metrics\.json (cannot be read: .* torn|is nested more|holds .* not the object)"
    ) as raised:
        read_json(tmp_path / "metrics.json")
    assert len(str(raised.value).splitlines()) == 1


def test_what_is_not_there_or_no_file_is_named_too(tmp_path: Path) -> None:
    for name, said in (("absent.json", "No such file"), (".", "Is a directory")):
        with pytest.raises(DataError, match=said):
            read_json(tmp_path / name)


def test_a_checkpoint_is_whole_by_its_checksums(tmp_path: Path) -> None:
    file = tmp_path / "best.ckpt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", b"weights" * 100)
    require_whole(file)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="'data' in it is not what was written"):
        require_whole(file)


def test_a_compressed_one_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes may unpack to more than there is memory."""
    with zipfile.ZipFile(tmp_path / "best.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(1 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", pytest.fail)
    with pytest.raises(DataError, match="it is compressed"):
        require_whole(tmp_path / "best.ckpt")


def test_what_a_library_says_moves_no_cursor() -> None:
    assert in_short(ValueError("a\x1b[2Jb\nand more")) == "a?[2Jb"
    assert in_short(EOFError()) == "EOFError"
