"""A PostgreSQL server on loopback, from Debian's package, for tests: it starts, dies and comes back."""

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

USER = "cats"


def find_binaries() -> Path | None:
    """Find the folder of the server's programs, which Debian keeps out of PATH; None if it is not installed."""
    if found := max(Path("/usr/lib/postgresql").glob("*/bin"), default=None):
        return found
    return Path(initdb).parent if (initdb := shutil.which("initdb")) else None


@dataclass
class Postgres:
    """A server with one role and as many databases as are asked for.

    Args:
        folder: of its files; short, for its socket lies there too.
    """

    folder: Path
    port: int = field(default_factory=lambda: free_port())

    def __post_init__(self) -> None:
        found = find_binaries()
        assert found, "PostgreSQL is not installed: apt-get install postgresql"
        self.binaries = found
        # The server refuses to run as root; Debian's package makes a user for it.
        self.account = "postgres" if os.getuid() == 0 else getpass.getuser()

    def create(self) -> None:
        """Make the files of the server, and start it."""
        self.folder.mkdir(parents=True)
        shutil.chown(self.folder, self.account)
        self._run("initdb", "-D", self._data, "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: "immediate" as a crash would, "fast" in good order."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def database(self, name: str) -> str:
        """Make an empty database, and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def allow(self, *rules: str) -> None:
        """Say who may come from this host, each as DATABASE ROLE METHOD, once the server reads its files again."""
        lines = ["host {} {} 127.0.0.1/32 {}\n".format(*rule.split()) for rule in rules]
        (self.folder / "data" / "pg_hba.conf").write_text("".join(lines))

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        # Not through pipes: the server that pg_ctl starts would hold them open.
        log = self.folder / f"{program}.log"
        with log.open("wb") as out:
            done = subprocess.run(
                [str(self.binaries / program), *arguments],
                user=self.account if os.getuid() == 0 else None,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
            )
        assert done.returncode == 0, log.read_text()


def free_port() -> int:
    """Find a port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
