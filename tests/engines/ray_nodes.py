"""The nodes of a Ray cluster on this machine, for tests: lines on stdin say which come and die, stdout answers each.

A process of its own: Ray's modules warn, and leave threads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Nodes are dead, and say that they are, after seconds instead of half a minute.
QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Ray:
    """A cluster of a head with `cpus` cores, and of more nodes by name. `folder` must be short: sockets lie in it."""

    folder: Path
    cpus: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the cluster, and of whoever uses it."""
        return {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self) -> None:
        """Start the head."""
        self.folder.mkdir(parents=True)
        self.log = (self.folder / "nodes.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **self.environment, **QUICK},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip
        self.address: str = self._ask("head", self.cpus, {}, {})

    def add(self, name: str, cpus: int = 1, resources: Mapping[str, float] = {}, **variables: str) -> None:
        """Start a node, and wait until it is there."""
        self._ask(name, cpus, resources, variables)

    def kill(self, name: str) -> None:
        """Let a node die at once, with what it runs; "head" as well."""
        self._ask("kill", name)

    def actors(self) -> list[str]:
        """Names of the actors that have not ended."""
        return self._ask("actors")

    def stop(self) -> None:
        """End everything."""
        self.process.communicate()
        self.log.close()

    def _ask(self, *request: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes: dict[str, Any] = {}
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            told: Any = None
            if method == "kill":
                cluster.remove_node(nodes.pop(arguments[0]), allow_graceful=False)
            elif method == "actors":
                ray.init(cluster.address, log_to_driver=False, ignore_reinit_error=True)
                told = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
                ray.shutdown()
            else:
                cpus, resources, variables = arguments
                os.environ.update(variables)
                nodes[method] = cluster.add_node(num_cpus=cpus, resources=resources, include_dashboard=False)
                for name in variables:
                    del os.environ[name]
                told = cluster.address
            print(json.dumps(told), file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
