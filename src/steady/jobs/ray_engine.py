"""Ray as an engine of `steady.jobs.cluster_executor`: one connection for all slots, one detached actor an allocation.

It takes the place of hydra-ray-launcher's `RayLauncher`, whose keys it reads: that starts or joins Ray in each process
that launches something, returns when the last of its jobs has ended, and lets Ray start what died again, three times,
in the same folder. An actor here is never restarted; it runs its command as a process that dies with it. Being detached
and named, it outlives its controller, and the next one finds it; a Ray that was started here dies with its controller.

`RayEngine` speaks to Ray through a process of its own (`python -m steady.jobs.ray_engine`): Ray prints, sets handlers
of signals, and after a minute without its head ends the process that it is in. Requests are lines of JSON on its stdin,
`[method of Client, arguments]`, and answers are lines on its stdout: `{"done": …}`, `{"away": why}`, or
`{"refused": why}`.
"""

import asyncio
import ctypes
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from steady.exceptions import ConfigError, StudyError
from steady.jobs.detached import PR_SET_PDEATHSIG, prctl
from steady.jobs.engine import EngineAway, State, Status
from steady.resources import without_rank
from steady.study.failures import Kind

log = logging.getLogger(__name__)

INIT = {"namespace": "steady", "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
REMOTE = {"num_cpus": 1}
# Keys of ray.remote that say where an allocation runs, and those that may only say what we do.
KNOWN = {
    "num_cpus", "num_gpus", "resources", "memory", "accelerator_type", "label_selector", "scheduling_strategy",
    "runtime_env",
}  # fmt: skip
FIXED = {"max_retries": 0, "max_restarts": 0, "max_task_retries": 0}
CONNECTING = 120.0  # seconds to connect to Ray, or to start one
ANSWERING = 5.0  # seconds for an answer, before Ray is taken to be away
PATIENCE = 600.0  # seconds that it may be away
LEAVING = 10.0  # seconds for the process that speaks to Ray to end
LINGER = 30.0  # seconds in which an actor tells how its command ended, if no controller has ended it before
POLL = 0.1  # seconds between two looks whether a command has ended
ENDING = 3.0  # seconds for commands to end at SIGKILL
SHOWN = 300  # characters of what Ray says


class RayEngine:
    """Ray, by the keys of `ray.init` and `ray.remote`."""

    name = "ray"
    trials_per_job: int | None = None  # an actor holds its share of a node until it ends, and takes a second to start

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any], patience: float = PATIENCE) -> None:
        self.init, self.remote, self.patience = {**INIT, **init}, {**REMOTE, **remote}, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""  # of an answer that is not whole
        self._owed = 0  # answers that are still to come
        self._away_since: float | None = None

    def check(self) -> None:
        """Connect to Ray, or start one; a ConfigError if it cannot be reached, or takes no such actors."""
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs Ray, which is not installed: pip install 'ray>=2.55,<3'.")
        try:
            self._connect()
            self._warn_of_lack(self._answer(CONNECTING))
        except EngineAway as error:
            self._disconnect()
            raise ConfigError(f"Ray cannot be reached: {error} See hydra.launcher.ray.init.address.") from error

    @classmethod
    def from_launcher(cls, launcher: Mapping[str, Any]) -> "RayEngine":
        """Make it from the keys of `hydra.launcher`; each is heeded or refused.

        >>> RayEngine.from_launcher({"_target_": "RayLauncher", "ray": {"remote": {"max_retries": 3}}})
        Traceback (most recent call last):
        steady.exceptions.ConfigError: hydra.launcher.ray.remote.max_retries is 3, and steady can only do with 0: ...
        """
        given = launcher.get("ray") or {}
        _refuse_unknown(launcher, {"_target_", "ray"}, "hydra.launcher")
        _refuse_unknown(given, {"init", "remote"}, "hydra.launcher.ray")
        init, remote = dict(given.get("init") or {}), dict(given.get("remote") or {})
        for key, only in FIXED.items():
            if (value := remote.pop(key, only)) != only:
                raise ConfigError(
                    f"hydra.launcher.ray.remote.{key} is {value!r}, and steady can only do with {only}: Ray would "
                    "start a trial again beside what is left of it. hydra.sweeper.retries says how often steady does."
                )
        _refuse_unknown(remote, KNOWN, "hydra.launcher.ray.remote")
        for place, keys in (("init", init), ("remote", remote)):
            _refuse_unknown(keys.get("runtime_env") or {}, {"env_vars"}, f"hydra.launcher.ray.{place}.runtime_env")
        if "://" in str(init.get("address")):
            raise ConfigError(
                f"hydra.launcher.ray.init.address is {init['address']!r}: Ray's proxy for clients. Expected the "
                "address of the head, HOST:6379, or auto, in a command that runs on a node of the cluster."
            )
        return cls(init, remote)

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        """Start a command in an actor; for a folder there is one, however often this is called."""
        id = f"{name}-{_mark(folder)}"
        self._request("start", list(command), str(folder), id)
        return id

    def statuses(self, started: Mapping[str, Path]) -> dict[str, Status]:
        """Ask for all allocations in one request. A StudyError when Ray has been away for too long."""
        told = self._request("statuses", _ours(started))
        return {
            id: Status(State(state), host, Kind(kind), message, cancelled)
            for id, (state, host, kind, message, cancelled) in told.items()
        }

    def cancel(self, started: Mapping[str, Path]) -> None:
        """End commands and their actors."""
        self._request("cancel", _ours(started))

    def close(self) -> None:
        """Disconnect. A Ray that was started here ends."""
        self._disconnect()

    def _warn_of_lack(self, nodes: list[dict[str, float]]) -> None:
        """Warn if no node has what an actor asks for: it waits until one has."""
        keys = {"CPU": self.remote["num_cpus"], "GPU": self.remote.get("num_gpus")}
        asked = {key: value for key, value in (keys | (self.remote.get("resources") or {})).items() if value}
        if not any(all(node.get(key, 0) >= value for key, value in asked.items()) for node in nodes):
            wanted = ", ".join(f"{value:g} {key}" for key, value in asked.items())
            log.warning("No node of Ray has %s: trials wait until one comes (hydra.launcher.ray.remote)", wanted)

    def _request(self, *request: Any) -> Any:
        try:
            if self._process is None:
                self._connect()
            while self._owed:  # to connect, or what came too late
                self._answer(ANSWERING)
            self._send(request)
            answer = self._answer(ANSWERING)
        except EngineAway as error:
            self._raise_if_for_long(error)
            raise
        self._away_since = None
        return answer

    def _raise_if_for_long(self, error: EngineAway) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("Ray is away: %s It is asked again for %g s", error, self.patience)
        if now - self._away_since > self.patience:
            self._away_since = None  # what follows is the end of the sweep
            raise StudyError(
                f"Ray has been away for {self.patience:g} s: {error} What has ended is kept in the study; "
                "the same command goes on with it when Ray is back."
            ) from error

    def _connect(self) -> None:
        """Start the process that speaks to Ray, which connects."""
        variables = {"RAY_USAGE_STATS_ENABLED": "0", **without_rank(os.environ)}
        variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if self.init["log_to_driver"] else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the controller
        )
        self._read, self._owed = b"", 0
        self._send(("connect", self.init, self.remote))

    def _disconnect(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin
            assert process.stdout
            with suppress(OSError):
                process.stdin.close()  # at which it ends
            try:
                process.wait(LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

    def _send(self, request: Sequence[Any]) -> None:
        assert self._process
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._lose()
        self._owed += 1

    def _answer(self, seconds: float) -> Any:
        """Read an answer."""
        assert self._process
        assert self._process.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            if not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise EngineAway("its head does not answer.")
            if not (chunk := os.read(self._process.stdout.fileno(), 1 << 16)):
                self._lose()
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        self._owed -= 1
        told = json.loads(line)
        if "away" in told:
            self._disconnect()
            raise EngineAway(told["away"])
        if "refused" in told:
            self._disconnect()
            raise ConfigError(f"Ray refuses hydra.launcher.ray. {told['refused']}")
        return told["done"]

    def _lose(self) -> NoReturn:
        self._disconnect()
        raise EngineAway("the connection to it has ended.")


def _mark(folder: Path) -> str:
    """Name an allocation's folder; it ends the id."""
    return hashlib.sha256(bytes(folder)).hexdigest()[:16]


def _ours(started: Mapping[str, Path]) -> list[str]:
    return [id for id, folder in started.items() if id.endswith(f"-{_mark(folder)}")]


def _refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(
            f"{where}.{unknown[0]} is not known to steady, which runs each job in an actor of its own making; expected "
            f"{', '.join(sorted(known))}. Take it out."
        )


class Allocation:
    """Actor that runs one command, in its own process group, which Ray ends as a whole."""

    def __init__(self, command: Sequence[str], folder: str, id: str) -> None:
        ctypes.CDLL(None)  # loaded before the fork
        # Ray's node may itself be a job of SLURM.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        try:
            with (Path(folder) / "engine.log").open("ab") as output:
                self.process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**variables, "STEADY_JOB_ID": id},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
                )
        except OSError as error:
            raise RuntimeError(
                f"{error.strerror}: {socket.gethostname()} has not the folder of the sweep, or not the controller's "
                "Python; all nodes need both, at the same place."
            ) from None
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        self.process.wait()
        time.sleep(LINGER)
        os._exit(0)  # else it would keep its share of the node for good, were its controller dead

    async def host(self) -> str:
        """Get the name of the host."""
        return socket.gethostname()

    async def wait(self) -> int:
        """Wait for the command's end; returns its exit code, or minus the number of a signal."""
        while (code := self.process.poll()) is None:
            await asyncio.sleep(POLL)
        return code

    async def end(self) -> None:
        """End the command."""
        self.process.kill()
        await self.wait()


@dataclass
class Watched:
    """An actor, and calls to it that are answered as it begins and as its command ends."""

    actor: Any

    def __post_init__(self) -> None:
        self.begun, self.ended = self.actor.host.remote(), self.actor.wait.remote()


Told = tuple[str, str, str, str, bool]  # a Status in plain words


@dataclass
class Client:
    """What is asked of Ray, in a process of its own."""

    ray: Any  # the module
    namespace: str
    make: Callable[[str], Any]  # the class of actors, with the options of one of this name
    watched: dict[str, Watched] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    ends: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def connect(cls, init: Mapping[str, Any], options: Mapping[str, Any]) -> "Client":
        """Connect to Ray, or start one. A ConnectionError if there is none at the address."""
        address = init.get("address") or os.environ.get("RAY_ADDRESS") or ""
        host, colon, port = address.rpartition(":")
        if colon:  # Ray itself tries for a quarter of an hour
            try:
                socket.create_connection((host.strip("[]"), int(port)), ANSWERING).close()
            except OSError as error:
                raise ConnectionError(f"{address}: {error.strerror or error}") from None
        ray: Any = importlib.import_module("ray")
        try:
            ray.init(**init)
        except ConnectionError:
            raise ConnectionError(
                f"{address or 'the address that Ray has noted'} does not answer as the head of a Ray would; is it the "
                "port of the head (6379), and are RAY_AUTH_MODE and RAY_AUTH_TOKEN here what they are there?"
            ) from None
        actor = ray.remote(Allocation)

        def make(name: str) -> Any:
            fixed = {"max_restarts": 0, "max_task_retries": 0, "lifetime": "detached", "get_if_exists": True}
            return actor.options(**options, **fixed, name=name, namespace=init["namespace"])

        make("checked")
        return cls(ray, init["namespace"], make)

    def nodes(self) -> list[dict[str, float]]:
        """List the resources of each node."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def start(self, command: Sequence[str], folder: str, id: str) -> None:
        """Start a command in an actor of this name, unless there is one."""
        self.watched[id] = Watched(self.make(id).remote(command, folder, id))

    def statuses(self, ids: Collection[str]) -> dict[str, Told]:
        """Get the statuses of those that are known. While the head is away this does not return."""
        self.ray.util.list_named_actors()
        return {id: status for id in ids if (status := self._status(id))}

    def cancel(self, ids: Collection[str]) -> None:
        """End commands and their actors."""
        there = [one for id in ids if (one := self._find(id))]
        self.cancelled.update(ids)
        # First the commands: for Ray an actor is dead before its process is.
        if ending := [one.actor.end.remote() for one in there if self._is_over(one.begun)]:
            self.ray.wait(ending, num_returns=len(ending), timeout=ENDING)
        for one in there:
            self.ray.kill(one.actor)

    def _find(self, id: str) -> Watched | None:
        """Find the actor of an allocation that has not ended, as far as is known."""
        if id not in self.watched and id not in self.ends:
            with suppress(ValueError):  # there is none
                self.watched[id] = Watched(self.ray.get_actor(id, namespace=self.namespace))
        return self.watched.get(id)

    def _is_over(self, call: Any) -> bool:
        return bool(self.ray.wait([call], timeout=0)[0])

    def _result(self, call: Any) -> Any:
        """Get the result of a call that is over, or its error."""
        try:
            return self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            return error

    def _status(self, id: str) -> Told | None:
        one = self._find(id)
        if one is None:
            return self.ends.get(id)
        host = self._result(one.begun) if self._is_over(one.begun) else None
        host = host if isinstance(host, str) else ""
        now: Told = "running" if host else "waiting", host, Kind.LOST, "", False
        if not self._is_over(one.ended):
            return now
        result = self._result(one.ended)
        if isinstance(result, self.ray.exceptions.ActorUnavailableError):  # the connection to it is lost
            one.ended = one.actor.wait.remote()
            return now
        kind, message = self._end(result)
        self.ends[id] = "ended", host, kind, message, id in self.cancelled or "ray.kill" in message
        self.ray.kill(one.actor)  # it lingers
        del self.watched[id]
        return self.ends[id]

    def _end(self, result: Any) -> tuple[Kind, str]:
        """Tell what became of an allocation by its exit code, or by Ray's error."""
        if isinstance(result, int):
            return Kind.LOST, f"Its job ended with {f'exit code {result}' if result >= 0 else f'signal {-result}'}."
        if isinstance(result, self.ray.exceptions.OutOfMemoryError):
            return Kind.OUT_OF_MEMORY, "Ray ended its job: the memory of the node was used up."
        if getattr(result, "preempted", False):
            return Kind.INTERRUPTED, "The node of its job was preempted."
        return Kind.LOST, reason(str(result))


def reason(said: str) -> str:
    r"""Pick the sentence that says why from what Ray says of an error, without paths.

    >>> reason("The actor died.\n\tpid: 7\nThe actor is dead because its node has died. Node Id: 3f")
    'The actor is dead because its node has died.'
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason is known"]
    told = next((line for line in lines if line.startswith("The actor is dead")), lines[-1])
    told = re.sub(r"(?<![\w.:])(?:/[^\s/:'\"]+){2,}", "…", told).partition(". ")[0][:SHOWN].rstrip(".")
    return told if told.endswith("?") else f"{told}."


def main() -> None:
    """Answer requests, of which the first is to connect, until there are no more."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what Ray prints is no answer
        client: Client | None = None
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            try:
                if client is None:
                    client = Client.connect(*arguments)
                    done: Any = client.nodes()
                else:
                    done = getattr(client, method)(*arguments)
                answer = {"done": done}
            except (ConnectionError, TimeoutError) as error:
                answer = {"away": reason(str(error))}
            except Exception as error:
                answer = {"refused": refusal(error)}
            print(json.dumps(answer), file=answers, flush=True)


def refusal(error: Exception) -> str:
    """Say why Ray refuses.

    >>> refusal(ValueError("num_cpus must be positive"))
    'ValueError: num_cpus must be positive.'
    """
    if type(error).__name__ == "AuthenticationError":
        return (
            "It asks for a token (RAY_AUTH_MODE=token), and there is none: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH "
            "to a file that has it, or put it into ~/.ray/auth_token; the nodes need the same."
        )
    return f"{type(error).__name__}: {reason(str(error))}"


if __name__ == "__main__":
    main()
