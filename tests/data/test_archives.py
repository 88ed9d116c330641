import errno
import gzip
import io
import lzma
import os
import random
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catsweep.data import archives
from catsweep.data.archives import Tar, Zip, open_files
from catsweep.data.decode import Unreadable
from catsweep.data.files import digest
from catsweep.data.sources import SUFFIXES, KaggleCats, Photos
from catsweep.errors import DataError

KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
Members = dict[str, bytes]


def pack(path: Path, members: Members) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path
    mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def of_folder(folder: Path, path: Path, inside: str = "") -> Path:
    files = [file for file in folder.rglob("*") if file.is_file()]
    random.Random(0).shuffle(files)
    return pack(path, {inside + str(file.relative_to(folder)): file.read_bytes() for file in files})


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_as_good_as_the_folder(folder: Path, tmp_path: Path, kind: str) -> None:
    (folder / "0.jpg.cat").write_text("9 1 2")
    (folder / "empty.jpg").touch()
    (folder / ".hidden.jpg").write_text("hidden")
    inside = "./" if kind == "tar" else ""  # as `tar -C DIR .` writes them
    file = of_folder(folder, tmp_path / f"cats.{kind}", inside)
    files, plain = open_files(file, SUFFIXES), open_files(folder, SUFFIXES)
    assert list(files) == list(plain)
    for name in [*plain, "0.jpg.cat"]:
        assert name in files
        with suppress(Unreadable):
            assert files.read(name) == plain.read(name)
            assert files.size(name) == plain.size(name)
    for name in ("nothing.jpg", "notes.txt"):
        with pytest.raises(Unreadable, match="No such file"):
            files.read(name)
    with pytest.raises(Unreadable, match="5 bytes, at most 4"):
        files.read("0.jpg.cat", 4)
    for source in (Photos, KaggleCats):
        assert source(file).key(32) == source(folder).key(32)
    ready = [(item.source, item.sha256, item.reason) for item in Photos(file).items(32)]
    assert ready == [(item.source, item.sha256, item.reason) for item in Photos(folder).items(32)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_photo_changes_the_digest(folder: Path, tmp_path: Path, kind: str) -> None:
    before = digest(open_files(of_folder(folder, tmp_path / f"a.{kind}"), SUFFIXES))
    data = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(data[:-1] + b"\0")
    assert digest(open_files(of_folder(folder, tmp_path / f"b.{kind}"), SUFFIXES)) != before


@pytest.mark.parametrize("kind", KINDS)
def test_no_member_leads_out_of_the_archive(tmp_path: Path, kind: str) -> None:
    unsafe = ["../up.jpg", "/etc/root.jpg", "a/../../b.jpg", "..\\win.jpg", "C:\\disk.jpg", "\\\\host\\share.jpg"]
    good = ["a:b.jpg", "12:30.jpg", "ü/ß.jpg", "a b\n'\".jpg"]
    files = open_files(pack(tmp_path / f"x.{kind}", dict.fromkeys([*unsafe, *good], b"cat")), SUFFIXES)
    assert sorted(files) == sorted([*unsafe, *good])
    for name in unsafe:
        with pytest.raises(Unreadable, match="unsafe path"):
            files.read(name)
    assert [files.read(name) for name in good] == [b"cat"] * 4
    assert list(tmp_path.iterdir()) == [tmp_path / f"x.{kind}"]


def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path) -> None:
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "disk": tarfile.BLKTYPE}
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in kinds.items():
            member = tarfile.TarInfo(f"{name}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    files = open_files(tmp_path / "x.tar", SUFFIXES)
    assert sorted(files) == sorted(f"{name}.jpg" for name in kinds)
    for name in files:
        assert files.size(name) == 0
        with pytest.raises(Unreadable, match="not a regular file"):
            files.read(name)


def test_links_secrets_and_odd_methods_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.jpg", bytes(10_000), zipfile.ZIP_LZMA)
        archive.writestr("secret.jpg", "cat")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 8] |= 1  # flags in the directory
    (tmp_path / "x.zip").write_bytes(data)
    files = open_files(tmp_path / "x.zip", SUFFIXES)
    reasons = {}
    for name in files:
        with pytest.raises(Unreadable) as caught:
            files.read(name)
        reasons[name] = caught.value.kind
    assert reasons == {
        "link.jpg": "not a regular file", "bomb.jpg": "unusual compression", "secret.jpg": "encrypted"
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_larger_than_a_photo_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    files = open_files(pack(tmp_path / f"x.{kind}", {"x.jpg": bytes(101), "y.jpg": b"cat"}), SUFFIXES)
    with pytest.raises(Unreadable, match="file too large: 101 bytes, at most 100"):
        files.read("x.jpg", 100)
    assert files.read("y.jpg") == b"cat"


@pytest.mark.parametrize("claim", [100, 99_999])
def test_a_zip_that_lies_about_a_size_is_noticed(tmp_path: Path, claim: int) -> None:
    pack(tmp_path / "x.zip", {"x.jpg": bytes(1000)})
    data = bytearray((tmp_path / "x.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = data[22:26] = struct.pack("<I", claim)
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(Unreadable, match="damaged in the archive"):
        open_files(tmp_path / "x.zip", SUFFIXES).read("x.jpg")


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_claims_too_much_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / f"x.{kind}", {f"{number}.jpg": bytes(3000) for number in range(100)})
    open_files(tmp_path / f"x.{kind}", SUFFIXES)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 99)
    with pytest.raises(DataError, match=r"99 files, but .* claims to hold more"):
        open_files(tmp_path / f"x.{kind}", SUFFIXES)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    monkeypatch.setattr(archives, "MAX_RATIO", 0)
    with pytest.raises(DataError, match=r"claims to hold more|unpacks to more"):
        open_files(tmp_path / f"x.{kind}", SUFFIXES)


@pytest.mark.parametrize("pack_bytes", [gzip.compress, lzma.compress])
def test_what_no_photo_hides_behind_is_not_unpacked_without_end(
    tmp_path: Path, pack_bytes: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pack(tmp_path / "x.tar", {"x.bin": bytes(5_000_000), "x.jpg": b"cat"}).read_bytes()
    (tmp_path / "x.tgz").write_bytes(pack_bytes(plain))
    monkeypatch.setattr(archives, "ALWAYS", 1_000_000)
    with pytest.raises(DataError, match="unpacks to more"):
        open_files(tmp_path / "x.tgz", SUFFIXES)


def test_a_long_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar's header may announce gigabytes of further header, which Python's reader would read at once."""
    monkeypatch.setattr(archives, "MAX_DIRECTORY", 10_000)
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 5_000_000
    with gzip.open(tmp_path / "x.tgz", "wb") as file:
        file.write(header.tobuf())
        file.write(bytes(5_000_000))
    pack(tmp_path / "x.zip", {f"{'x' * 200}{number}.jpg": b"" for number in range(100)})
    for name in ("x.tgz", "x.zip"):
        with pytest.raises(DataError, match="cannot be read: its directory claims more"):
            open_files(tmp_path / name, SUFFIXES)


def test_an_xz_that_wants_gigabytes_is_refused(tmp_path: Path) -> None:
    plain = pack(tmp_path / "x.tar", {"x.jpg": b"cat"}).read_bytes()
    for window, fits in ((28, True), (34, False)):  # how 64 MiB and 512 MiB are coded
        data = bytearray(lzma.compress(plain, preset=0))
        # Of the header of the first block: its length in words, less one; then the filter, its window, and a checksum.
        end = 12 + (data[12] + 1) * 4 - 4
        data[data.index(b"\x21\x01", 12, end) + 2] = window
        data[end : end + 4] = struct.pack("<I", zlib.crc32(data[12:end]))
        (tmp_path / "x.txz").write_bytes(data)
        if fits:
            assert open_files(tmp_path / "x.txz", SUFFIXES).read("x.jpg") == b"cat"
        else:
            with pytest.raises(DataError, match=r"cannot be read: .*[Mm]emory"):
                open_files(tmp_path / "x.txz", SUFFIXES)


@pytest.mark.parametrize("kind", KINDS)
def test_photos_under_other_names_are_whole_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    """Their first bytes are looked at on the way through, and some decompressors cannot go back."""
    draws = random.Random(0)
    members = {f"photo.{number}": b"\xff\xd8\xff" + draws.randbytes(draws.randrange(90_000)) for number in range(9)}
    members |= {f"small.{number}": b"\xff\xd8\xff" + draws.randbytes(draws.randrange(999)) for number in range(900)}
    files = open_files(pack(tmp_path / f"x.{kind}", members), SUFFIXES)
    assert {name: files.read(name) for name in files} == members


def test_an_xz_in_several_parts_is_read(tmp_path: Path) -> None:
    plain = pack(tmp_path / "x.tar", {"x.jpg": b"cat" * 9999}).read_bytes()
    (tmp_path / "x.txz").write_bytes(lzma.compress(plain[:700]) + bytes(8) + lzma.compress(plain[700:]))
    assert open_files(tmp_path / "x.txz", SUFFIXES).read("x.jpg") == b"cat" * 9999


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_truncated_archive_is_an_error_that_says_so(folder: Path, tmp_path: Path, kind: str, share: float) -> None:
    file = of_folder(folder, tmp_path / f"x.{kind}")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"Expected a whole archive of photos, but .* cannot be read: .* Get it again"):
        open_files(file, SUFFIXES)


def test_a_tar_with_a_broken_header_in_the_middle_does_not_end_there(folder: Path, tmp_path: Path) -> None:
    file = of_folder(folder, tmp_path / "x.tar")
    with tarfile.open(file) as archive:
        third = archive.getmembers()[2].offset
    data = bytearray(file.read_bytes())
    data[third : third + 8] = b"\xff" * 8
    file.write_bytes(data)
    with pytest.raises(DataError, match="a header in the middle"):
        open_files(file, SUFFIXES)


def test_a_photo_damaged_in_a_zip_costs_only_itself(folder: Path, tmp_path: Path) -> None:
    file = of_folder(folder, tmp_path / "x.zip")
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("3.jpg").header_offset
    data = bytearray(file.read_bytes())
    data[place + 60 : place + 90] = bytes(30)
    file.write_bytes(data)
    reasons = {item.source: item.reason for item in Photos(file).items(32) if item.reason}
    assert list(reasons) == ["3.jpg"]
    assert reasons["3.jpg"].startswith("damaged in the archive: ")


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", {"inside.jpg": b"cat"}).read_bytes()
    file = pack(tmp_path / "x.tar", {"outside.jpg": b"cat", "inner.zip": inner})
    assert list(open_files(file, SUFFIXES)) == ["outside.jpg"]


def test_a_tar_with_holes_is_refused_and_one_of_old_is_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x.jpg")
    member.size, member.type = 3, tarfile.GNUTYPE_SPARSE
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"00000010000\0"  # its size without the holes
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    (tmp_path / "x.tar").write_bytes(bytes(block) + b"cat".ljust(512, b"\0") + bytes(1024))
    with pytest.raises(Unreadable, match="one with holes"):
        open_files(tmp_path / "x.tar", SUFFIXES).read("x.jpg")
    old = bytearray(pack(tmp_path / "old.tar", {"x.jpg": b"cat"}).read_bytes())
    old[257:265] = bytes(8)
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 256 + sum(old[156:512]))
    (tmp_path / "old.tar").write_bytes(old)
    assert open_files(tmp_path / "old.tar", SUFFIXES).read("x.jpg") == b"cat"


@pytest.mark.parametrize(
    "data", [b"", b"cat", b"cat" * 999, bytes(10_240), gzip.compress(b"no tar", mtime=0), b"PK\x03\x04"]
)
def test_what_is_no_archive_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip (is a file of another kind|cannot be read)"):
        open_files(tmp_path / "x.zip", SUFFIXES)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(DataError, match="it is a pipe"):
        open_files(tmp_path / "x.zip", SUFFIXES)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_damaged_bytes_give_an_archive_or_an_error_of_ours(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    file = pack(tmp_path / f"x.{kind}", {"a.jpg": b"cat" * 50, "b/ü.png": b"dog" * 50, "a.jpg.cat": b"9"})
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with suppress(DataError):
        files = open_files(file, SUFFIXES)
        for name in files:
            with suppress(Unreadable):
                assert len(files.read(name)) == files.size(name)
        assert isinstance(files, Zip | Tar)


@pytest.mark.security
@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_temporary_folder_is_not_a_damaged_archive(
    folder: Path, tmp_path: Path, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(DataError, match=r"room in \S+/temporary, .*TMPDIR.*data\.source=DIR") as caught:
        open_files(of_folder(folder, tmp_path / f"cats.{kind}"), SUFFIXES)
    assert "Get it again" not in str(caught.value)


@pytest.mark.security
@pytest.mark.parametrize("kind", KINDS)
def test_trouble_of_the_machine_is_not_damage(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = of_folder(folder, tmp_path / f"cats.{kind}")

    def opened(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(file))

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match="Too many open files"):
        open_files(file, SUFFIXES)


@pytest.mark.security
def test_what_is_no_archive_is_told_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "cats.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(600))
    (tmp_path / "cats.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    said = {
        "cats.7z": "is a file of another kind. Unpack it if it is an archive",
        "cats.txt": "is a file of another kind",
        "pipe": "is neither: it is a pipe",
        "link": "is a link that leads nowhere",
        "missing": "is not there; check the path",
        "cats.txt/below": "is not there; check the path",
    }
    for name, what in said.items():
        with pytest.raises(DataError, match=re.escape(f"data.source={tmp_path / name} {what}")):
            open_files(tmp_path / name, SUFFIXES)
