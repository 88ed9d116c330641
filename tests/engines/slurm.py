"""A SLURM cluster of two nodes on loopback, without systemd, for tests: munge, a controller, and a daemon a node.

Start it as root in a network namespace of its own (`make test-engines` does).
"""

import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.engines.postgres import free_port
from tests.engines.sweeps import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
CONF = """\
ClusterName=catsweep
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=20
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=cats Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Slurm:
    """The cluster. `folder` must be short: a socket's path lies in it."""

    folder: Path
    cpus: int = 1
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that SLURM's commands need to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start everything, and wait until both nodes take jobs."""
        self.folder.mkdir(parents=True, mode=0o755)
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(
            CONF.format(
                host=socket.gethostname().partition(".")[0],
                folder=self.folder,
                cpus=self.cpus,
                ports=[free_port() for _ in range(3)],
            )
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._spawn(
            "munged",
            "-F",
            f"--key-file={key}",
            f"--socket={self.folder}/munge.socket",
            f"--log-file={self.folder}/munge.log",
            f"--pid-file={self.folder}/munge.pid",
            f"--seed-file={self.folder}/munge.seed",
            "--force",
        )
        wait_for((self.folder / "munge.socket").exists, "munge's socket", 20)
        self.start_controller()
        for node in ("n1", "n2"):
            self.start_node(node)
        wait_for(lambda: self.nodes() == {"n1": "idle", "n2": "idle"}, "two idle nodes", 60)

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._spawn("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._spawn("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"), name=node)

    def kill_node(self, node: str) -> None:
        """Let a node die: its daemon, and all that its jobs run."""
        daemon = self.processes.pop(node)
        daemon.kill()
        daemon.wait()
        steps = [process for process in psutil.process_iter() if self._is_step(process, node)]
        for process in steps:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start_nodes(self) -> None:
        """Start the daemons that have died."""
        for node in {"n1", "n2"} - set(self.processes):
            self.start_node(node)

    def nodes(self) -> dict[str, str]:
        """States of the nodes, by name."""
        told = self.run("sinfo", "--noheader", "--Node", "--format=%N %t", check=False).stdout
        return dict(line.split() for line in told.splitlines())

    def jobs(self) -> dict[str, str]:
        """States of the jobs that have not ended, by id."""
        told = self.run("squeue", "--noheader", "--format=%i %T").stdout
        return dict(line.split() for line in told.splitlines())

    def show(self, job: str) -> dict[str, str]:
        """What the controller knows of a job, by key."""
        told = self.run("scontrol", "show", "job", "-o", job).stdout
        return dict(part.split("=", 1) for part in told.split() if "=" in part)

    def run(
        self,
        *command: str,
        check: bool = True,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of SLURM's commands."""
        known = {**os.environ, **(environment or {}), **self.environment}
        return subprocess.run(command, env=known, cwd=folder, capture_output=True, text=True, check=check)

    def stop(self) -> None:
        """End everything."""
        while self.processes:
            _, process = self.processes.popitem()
            _kill_tree(process.pid)
            process.wait()

    def _is_step(self, process: psutil.Process, node: str) -> bool:
        """Tell whether a process is of a job on a node: its step daemon, which has left slurmd, or what that runs."""
        with suppress(psutil.Error):
            if process.name() == "slurmstepd":
                spool = str(self.folder / f"spool-{node}")
                return any(spool in file.path for file in process.open_files()) or any(
                    self._runs_on(child, node) for child in process.children()
                )
            return self._runs_on(process, node)
        return False

    def _runs_on(self, process: psutil.Process, node: str) -> bool:
        variables = process.environ()  # other clusters have nodes of the same names
        return variables.get("SLURMD_NODENAME") == node and self.environment.items() <= variables.items()

    def _spawn(self, program: str, *arguments: str, name: str | None = None) -> None:
        with (self.folder / f"{name or program}.out").open("ab") as out:
            self.processes[name or program] = subprocess.Popen(
                [program, *arguments], env=os.environ | self.environment, cwd="/",
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip


def _kill_tree(pid: int) -> None:
    """Kill a process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
