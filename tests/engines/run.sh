#!/usr/bin/env bash
# Run tests/engines with real servers: install them where they are missing, and start them on the loopback of a network
# namespace of their own. It is a namespace of processes, too: whatever they leave running ends with it. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
needed=(postgresql slurm-wlm munge iproute2)
if ! dpkg -s "${needed[@]}" >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >/dev/null
  apt-get -qq install -y --no-install-recommends "${needed[@]}" >/dev/null
fi
.venv/bin/python -c 'import ray' 2>/dev/null || .venv/bin/python -m pip install --quiet -c constraints.txt 'ray>=2.55,<3'
export PYTHONUTF8=1
exec unshare --net --uts --pid --fork --kill-child --mount-proc bash -c '
  hostname localhost
  ip link set lo up
  # SLURM looks addresses up with AI_ADDRCONFIG, which finds none where there is only loopback.
  ip link add engines0 type veth peer name engines1
  ip addr add 10.99.0.1/24 dev engines0
  ip link set engines0 up && ip link set engines1 up
  exec "$@"' -- .venv/bin/python -m pytest tests/engines --engines "$@"
