"""Hosts on loopback, each with an sshd, a name and processes of its own, for tests: they die, and lose connections.

Start them as root in a network namespace of its own (`make test-engines` does): their addresses and port are fixed.
"""

import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.engines.sweeps import wait_for

PORT = 2222
CONF = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
PasswordAuthentication no
UsePAM no
StrictModes no
"""
CLIENT = """\
#!/bin/sh
exec ssh -F {folder}/ssh_config "$@"
"""


@dataclass
class Host:
    """A host; `processes` of it are in a namespace of their own, as its name is."""

    name: str
    address: str
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start the host, and wait until it takes connections."""
        conf = self.folder / f"{self.name}.conf"
        conf.write_text(CONF.format(port=PORT, address=self.address, folder=self.folder))
        own = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        command = (*own, "sh", "-c", 'hostname "$1" && exec /usr/sbin/sshd -D -e -f "$2"', "sh", self.name, str(conf))
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, f"the sshd of {self.name}", 20)

    def kill(self) -> None:
        """Let the host die with all that runs on it."""
        self.process.kill()
        self.process.wait()

    def sessions(self) -> list[psutil.Process]:
        """Processes of its sshd that serve connections."""
        (sshd,) = psutil.Process(self.process.pid).children()
        return sshd.children()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.address, PORT), timeout=1):
            return True
        return False


@dataclass
class Hosts:
    """Two hosts, `first` and `second`, and a client that knows them and has the key to them."""

    folder: Path

    def __post_init__(self) -> None:
        names = ("first", "second")
        self.all = {name: Host(name, f"127.0.1.{i}", self.folder) for i, name in enumerate(names, start=1)}
        self.client = self.folder / "ssh"

    def start(self) -> None:
        """Make keys, and start both."""
        Path("/run/sshd").mkdir(exist_ok=True)  # of Debian's service, which is not started
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        lines = [f"IdentityFile {self.folder}/key", f"UserKnownHostsFile {self.folder}/known", f"Port {PORT}"]
        lines += ["StrictHostKeyChecking accept-new", "User root"]
        for host in self.all.values():
            lines += [f"Host {host.name}", f"HostName {host.address}"]
            host.start()
        (self.folder / "ssh_config").write_text("\n".join(lines) + "\n")
        self.client.write_text(CLIENT.format(folder=self.folder))
        self.client.chmod(0o755)

    def stop(self) -> None:
        """End both."""
        for host in self.all.values():
            host.kill()
