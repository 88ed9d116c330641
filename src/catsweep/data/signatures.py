"""What a file is by its first bytes, where its name does not say it.

Serves the sources (`catsweep.data.files`, `catsweep.data.archives`): browsers, phones and scrapers save sound photos as
`photo`, `photo.jpg_large` or `photo.jpg?w=300`. What begins like an image is tried; `catsweep.data.decode` judges it.
"""

import re
from pathlib import PurePosixPath

START = 64  # bytes that are needed
# Of the formats in `decode.FORMATS`, and HEIF.
_IMAGE = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF.{4}WEBP"
    rb"|II[*+]\0|MM\0[*+]"  # TIFF, BigTIFF
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP: nothing reserved, a header of a known length
    rb"|P[1-6]\s+[#\d]"  # PPM
    rb"|\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"  # JPEG 2000
    rb"|.{4}ftyp.{0,40}?(?:avi[fs]|hei[cx]|hev[cx])",
    re.DOTALL,
)
# Camera raw that begins like a TIFF, whose first picture is a thumbnail.
_RAW = {".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"}
_RAW |= {".nef", ".nrw", ".pef", ".rwl", ".sr2", ".srf", ".srw"}


def why_not(name: str, start: bytes) -> str:
    """Why a file is passed over; empty if it is to be tried.

    Args:
        name: of the file.
        start: its first `START` bytes, or all if it has fewer.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if not start:
        return "empty file"
    if _IMAGE.match(start) is None:
        return f"not an image: {suffix or 'without a suffix'}"
    raw = suffix in _RAW and start.startswith((b"II", b"MM"))
    return "camera raw: save it as JPEG first" if raw else ""


def hidden(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """What is hidden of a path: its name, of a folder with a slash behind it, and the reason; None if nothing is.

    Args:
        parts: of the path.
    """
    for place, part in enumerate(parts):
        if part == "__MACOSX" or part.startswith("._"):
            reason = "metadata of macOS"
        elif part.startswith(".") and part != "..":
            reason = "hidden"
        else:
            continue
        return "/".join(parts[: place + 1]) + ("/" if place + 1 < len(parts) else ""), reason
    return None
