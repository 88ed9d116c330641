#!/usr/bin/env bash
# Run tests/engines with real servers: install them where they are missing, and start them on the loopback of a network
# namespace of their own. It is a namespace of processes, too: whatever they leave running ends with it. Needs root.
# With --check it installs, runs nothing, and its exit code and one line tell whether the tests can run here.
set -euo pipefail
cd "$(dirname "$0")/../.."

# All that runs in the namespaces ends with this script, however that ends.
enter=(setpriv --pdeathsig KILL unshare --net --uts --ipc --pid --fork --kill-child --mount-proc)
if ! "${enter[@]}" true; then
  echo "tests/engines/run.sh needs root and namespaces of Linux (unshare), which it does not get here." >&2
  exit 1
fi

# Debian's packages, and their services: what was not there before is for these tests alone, and stays off.
declare -A services=(
  [postgresql]=postgresql [slurm-wlm]="slurmctld slurmd" [munge]=munge [openssh-server]=ssh [iproute2]=""
)
missing=()
for package in "${!services[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
policy=/usr/sbin/policy-rc.d # Debian asks it before a package starts a service
made=()
trap 'rm -rf "${made[@]}"' EXIT
if [ ${#missing[@]} != 0 ]; then
  if [ ! -e $policy ]; then
    made+=($policy)
    install -m 755 <(printf '#!/bin/sh\nexit 101\n') $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >/dev/null; then
    echo "tests/engines/run.sh needs packages of Debian that it cannot install here: ${missing[*]}" >&2
    exit 1
  fi
  for package in "${missing[@]}"; do
    for service in ${services[$package]}; do systemctl --quiet disable "$service" 2>/dev/null || true; done
  done
  rm -rf "${made[@]}"
  made=()
fi

inside='
  set -e
  mount -t tmpfs tmpfs /dev/shm
  hostname localhost
  ip link set lo up
  # SLURM looks addresses up with AI_ADDRCONFIG, which finds none where there is only loopback.
  ip link add engines0 type veth peer name engines1
  ip addr add 10.99.0.1/24 dev engines0
  ip link set engines0 up && ip link set engines1 up
  exec "$@"'
if [ "${1-}" = --check ]; then
  "${enter[@]}" bash -c "$inside" -- true
  exit
fi

TMPDIR=$(mktemp -d /tmp/eXXXX) # short, for sockets
made+=("$TMPDIR")
chmod 755 "$TMPDIR" # the database has an account of its own
export TMPDIR PYTHONUTF8=1
"${enter[@]}" bash -c "$inside" -- .venv/bin/python -m pytest tests/engines --engines -n 3 "$@"
