"""A folder that holds every bad file one can think of is ingested: each is refused by its reason, and that is all."""

import io
import os
import random
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from catsweep.data.archives import open_files
from catsweep.data.sources import SUFFIXES, Photos
from catsweep.prepare.manifest import MANIFEST, Record, read_manifest
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.original import Original

pillow_heif.register_heif_opener()

KEPT = ""
LIMIT = 800 << 20  # of the gibibyte that a preparation may take; the other stages have their libraries to load
FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM",
           "avif": "AVIF", "jp2": "JPEG2000", "heic": "HEIF"}  # fmt: skip

# What a process does that ingests a folder; it says what it found, and how much memory it took at most.
CODE = """
import sys
from pathlib import Path
from catsweep.prepare.stages.original import Original
from catsweep.prepare.stage_cache import build
from catsweep.data.sources import Photos
folder, root = Path(sys.argv[1]), Path(sys.argv[2])
stage = Original(Photos(folder).files)
build(stage, root / "0.original", root, stage.inputs())
status = Path("/proc/self/status")
print([line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")][0])
"""


def soft(height: int = 90, width: int = 120, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    small = np.random.default_rng(height + width).integers(30, 225, (4, 5, channels), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height)), dtype=np.uint8)


def encoded(image: Any, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: int | None = None, kind: int = 2) -> bytes:
    """A black PNG of any size, made with no memory; of fewer rows than it claims, if one likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(1), bytes(1 + width * (3 if kind == 2 else 1))
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    head = struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_odd_photos(folder: Path) -> dict[str, str]:
    """Photos that are odd, and fine."""
    photo, image = soft(), Image.fromarray(soft())
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    palette = image.quantize(16)
    strange = Image.Exif()
    strange[0x0112], strange[0x010F], strange[0x8769] = 99, "m" * 9999, {0x9000: b"?" * 999}
    names = ["new\nline.jpg", "return\rtab\t.jpg", "'\"quotes\",;.jpg", "🐱 é.jpg", "x" * 240 + ".jpg", "-rf.jpg",
             "$(reboot).jpg", "con.jpg", " .jpg", "A.JPG", "a.jpg", "a.jpeg", "sub/a.jpg", "a.b..jpg"]  # fmt: skip
    files = {
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "inks.jpg": encoded(image.convert("CMYK")),
        "deep.png": encoded((photo[..., 0].astype(np.uint16) * 257), "PNG"),
        "floats.tif": encoded(photo[..., 0].astype(np.float32), "TIFF"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "called.png": encoded(photo, "JPEG"),
        "exif.jpg": encoded(photo, exif=strange),
        "torn exif.jpg": encoded(photo, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 60_000),
        **dict.fromkeys(("large.png", "large too.png"), png(8_600, 8_700)),
        "photo.heic": encoded(photo, "HEIF"),
        **{name: encoded(photo, quality=90 - place) for place, name in enumerate(names)},
    }
    (folder / "sub").mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return dict.fromkeys(files, KEPT)


def write_bombs(folder: Path) -> dict[str, str]:
    """Files that claim to be huge, or are."""
    small = encoded(soft())
    frame = small.index(b"\xff\xc0") + 5
    bitmap = bytearray(encoded(soft(), "BMP"))
    bitmap[18:26] = struct.pack("<2i", 30_000, 30_000)
    moving = bytearray(encoded(Image.new("RGBA", (64, 64), (9, 9, 9, 9)), "WEBP", save_all=True,
                               append_images=[Image.new("RGBA", (64, 64))]))  # fmt: skip
    place = moving.index(b"VP8X") + 12
    moving[place : place + 6] = struct.pack("<I", 16_000)[:3] * 2
    wide = encoded(soft(), "JPEG2000")
    box = wide.index(b"ihdr") + 4
    files = {
        "header.png": png(60_000, 60_000, rows=1),
        "many.png": png(9_000, 9_500, rows=9),
        "long.png": png(32_767, 40, kind=0),
        "header.jpg": small[:frame] + struct.pack(">2H", 65_500, 65_500) + small[frame + 4 :],
        "header.gif": b"GIF89a" + struct.pack("<2H", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(30),
        "header.bmp": bytes(bitmap),
        "header.ppm": b"P6 60000 60000 255\n" + bytes(99),
        "header.webp": bytes(moving),
        "header.jp2": wide[:box] + struct.pack(">2I", 60_000, 60_000) + wide[box + 8 :],
        "wide.jp2": wide[:box] + struct.pack(">2I", 20_000, 20_000) + wide[box + 8 :],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for name, size in (("sparse.jpg", 1 << 40), ("sparse.tif", 60 << 20)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    return {**dict.fromkeys(files, "too many pixels"), "sparse.jpg": "file too large", "sparse.tif": "not an image"}


def write_damage(folder: Path) -> dict[str, str]:
    """Of each format one file that is cut off, and one with a hole; and what is no picture at all."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for suffix, form in FORMATS.items():
        data = encoded(noise, form)
        (folder / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
        if suffix not in ("bmp", "ppm", "tif"):  # these have nothing to tell a hole by
            (folder / f"hole.{suffix}").write_bytes(data[:40] + random.Random(0).randbytes(len(data) // 2))
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../../escaped.jpg", b"cat")
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped.jpg"))
    files = {
        "text.jpg": b"These are not the cats you look for.",
        "page.png": b"<!doctype html><title>404 Not Found</title>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n(rm) run\n",
        "zip.jpg": zipped.getvalue(),
        "tar.jpg": tarred.getvalue(),
        "zeros.png": bytes(9999),
        "markers.jpg": b"\xff\xd8" + b"\xff" * 9999,
    }
    for name, data in {**files, "nested.zip": zipped.getvalue(), "nested.tar": tarred.getvalue()}.items():
        (folder / name).write_bytes(data)
    (folder / "empty.jpg").touch()
    return {**dict.fromkeys(files, "not an image"), "empty.jpg": "empty file", "markers.jpg": "*"} | {
        file.name: "*" for file in folder.iterdir() if file.stem in ("cut", "hole")
    }


def write_no_files(folder: Path) -> dict[str, str]:
    """What has a name, and is no file."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "link.jpg").symlink_to("a.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may not be long
        listener.bind("socket.jpg")
        os.chdir(here)
    names = ["pipe.jpg", "loop", "self.jpg", "dangling.jpg", "link.jpg", "device.jpg", "socket.jpg"]
    return dict.fromkeys(names, "not a regular file")


def write_landmarks(folder: Path) -> dict[str, str]:
    """Photos with garbage beside them; it costs no photo."""
    names = ["words", "bytes", "long", "nan", "pipe", "folder", "nothing"]
    for name in names:
        (folder / f"beside {name}.jpg").write_bytes(encoded(soft(width=100 + len(name))))
    garbage = {"words": b"meow", "bytes": bytes(range(256)), "long": b"9 " * 999_999, "nan": b"9" + b" nan" * 18}
    for name, data in {**garbage, "nothing": b""}.items():
        (folder / f"beside {name}.jpg.cat").write_bytes(data)
    os.mkfifo(folder / "beside pipe.jpg.cat")
    (folder / "beside folder.jpg.cat").mkdir()
    return {f"beside {name}.jpg": KEPT for name in names}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder, and what is to become of each file: kept, or the kind of reason; `*` is any."""
    folder = tmp_path_factory.mktemp("hostile")
    expected = {}
    for write in (write_odd_photos, write_bombs, write_damage, write_no_files, write_landmarks):
        expected |= write(folder)
    (folder / "tiny.png").write_bytes(png(1, 1))
    (folder / "panorama.png").write_bytes(png(32_766, 33, kind=0))
    expected |= {"tiny.png": "photo too small", "panorama.png": "photo too narrow"}
    (folder / "secret.jpg").write_bytes(encoded(soft(91)))
    (folder / "secret.jpg").chmod(0)
    expected["secret.jpg"] = KEPT if os.access(folder / "secret.jpg", os.R_OK) else "cannot be opened"  # root reads all
    try:
        (folder / os.fsdecode(b"caf\xe9 \xff.jpg")).write_bytes(encoded(soft(92)))
        expected[os.fsdecode(b"caf\xe9 \xff.jpg")] = KEPT
    except OSError:
        pass  # this file system takes only UTF-8
    return folder, expected


@pytest.fixture(scope="module")
def ingested(
    hostile: tuple[Path, dict[str, str]], root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Record], int]:
    """The manifest, and the most memory that the process took, bytes."""
    place = tmp_path_factory.mktemp("stages")
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, str(hostile[0]), str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(read_manifest(place / "0.original" / MANIFEST)), int(done.stdout) * 1024


def test_each_bad_file_is_refused_by_reason_and_each_odd_one_kept(
    hostile: tuple[Path, dict[str, str]], ingested: tuple[list[Record], int]
) -> None:
    expected, (records, _) = hostile[1], ingested
    found = {record.source: record.reason.split(":")[0] for record in records}
    assert all(record.kept == (record.reason == "") for record in records)
    assert all(found[name] for name, kind in expected.items() if kind == "*")
    assert {name: kind for name, kind in found.items() if expected.get(name) != "*"} == {
        name: kind for name, kind in expected.items() if kind != "*"
    }


def test_it_takes_little_memory(ingested: tuple[list[Record], int]) -> None:
    assert 100 << 20 < ingested[1] < LIMIT


def test_garbage_beside_a_photo_is_noted(ingested: tuple[list[Record], int]) -> None:
    notes = {r.source: r.parameters["landmarks"] for r in ingested[0] if r.source.startswith("beside")}
    assert len(notes) == 7
    assert all(note.startswith("malformed landmarks: ") for note in notes.values())


def test_every_photo_has_a_name_of_its_own_on_any_file_system(ingested: tuple[list[Record], int]) -> None:
    names = [record.id for record in ingested[0]]
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name) < 60 and name.isascii() and not set(name) & set("/\\:*?\"<>|\n\r\t ' ") for name in names)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_same_in_an_archive_comes_to_the_same(
    hostile: tuple[Path, dict[str, str]], ingested: tuple[list[Record], int], tmp_path: Path, kind: str
) -> None:
    """But for what has a name and is no file, of which a zip has no notion, and names that it cannot write."""
    files = sorted(file for file in hostile[0].rglob("*") if file.is_file() and not file.is_symlink())
    files = [file for file in files if file.stat().st_size < 1 << 18 and str(file).isprintable()]
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(hostile[0]))
    else:
        with tarfile.open(path, "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(hostile[0]))
    stage = Original(Photos(path).files)
    done = build(stage, tmp_path / "0.original", tmp_path, stage.inputs())
    before = {record.source: record for record in ingested[0]}
    assert len(done.records) > 40
    for record in done.records:
        same = before[record.source]
        assert (record.id, record.reason, record.digest) == (same.id, same.reason, same.digest)


def test_a_zip_that_leads_out_of_itself_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "x.zip", "w") as archive:
        for name in ("../escaped.jpg", "/escaped.jpg", "cat.jpg"):
            archive.writestr(name, encoded(soft()))
    stage = Original(open_files(tmp_path / "in" / "x.zip", SUFFIXES))
    done = build(stage, tmp_path / "in" / "0.original", tmp_path / "in", stage.inputs())
    assert {record.source: record.reason.split(":")[0] for record in done.records} == {
        "/escaped.jpg": "unsafe path", "../escaped.jpg": "unsafe path", "cat.jpg": ""
    }  # fmt: skip
    assert not list(tmp_path.glob("*.jpg"))
    assert len(done.kept) == 1
