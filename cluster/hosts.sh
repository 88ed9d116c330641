#!/bin/bash
# Start a controller of one study on each host, over ssh; the project's folder is at the same place on all of them.
#
#   cluster/hosts.sh "host1 host2" hparams_search=vae_optuna study=cats hydra.sweeper.storage=postgresql://cats@HOST/cats
#
# Ctrl-C closes the connections, which interrupts all of them: trials keep a checkpoint, and the same line goes on.
set -euo pipefail
read -ra hosts <<<"$1"
shift
program=$(printf '%q ' "${PYTHON:-.venv/bin/python}" "${APP:-src/train.py}" -m "$@")
clients=()
trap 'kill "${clients[@]}" 2>/dev/null' INT TERM
for host in "${hosts[@]}"; do
  # With a terminal there (-tt), what runs in it is told when the connection ends. It is a plain one (TERM), for whole
  # lines, each of which says where it is from. A host that has lost power is noticed after 45 s (ServerAliveInterval).
  TERM=dumb "${SSH:-ssh}" -tt -o ServerAliveInterval=15 "$host" "cd $(printf %q "$PWD") && $program" </dev/null \
    > >(sed -u "s/^/$host: /; s/\r$//") &
  clients+=($!)
done
code=0
for number in "${!clients[@]}"; do
  client=${clients[number]}
  status=0
  wait "$client" || status=$?
  while kill -0 "$client" 2>/dev/null; do # a signal ends a wait
    status=0
    wait "$client" || status=$?
  done
  if [ "$status" != 0 ]; then
    echo "${hosts[number]}: ended with exit code $status" >&2
    code=$status
  fi
done
exit "$code"
