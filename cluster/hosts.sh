#!/bin/bash
# Start a controller of one study on each host, over ssh; the project's folder is at the same place on all of them.
#
#   cluster/hosts.sh "host1 host2" hparams_search=vae_optuna study=cats hydra.sweeper.storage=postgresql://cats@HOST/cats
#
# Ctrl-C closes the connections, which interrupts all of them: trials keep a checkpoint, and the same line goes on.
set -euo pipefail
hosts=$1
shift
words=$(printf '%q ' "$@")
clients=()
trap 'kill "${clients[@]}" 2>/dev/null' INT TERM
for host in $hosts; do
  # With a terminal there (-tt), what runs in it is told when the connection ends; each line says where it is from.
  "${SSH:-ssh}" -tt "$host" "cd $(printf %q "$PWD") && .venv/bin/python src/train.py -m $words" </dev/null \
    > >(sed "s/^/$host: /") &
  clients+=($!)
done
code=0
for client in "${clients[@]}"; do
  wait "$client" || code=$?
  while kill -0 "$client" 2>/dev/null; do wait "$client" || code=$?; done  # a signal ends a wait
done
exit "$code"
