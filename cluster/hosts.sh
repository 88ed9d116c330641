#!/bin/bash
# Start a controller of one study on each host, over ssh; the project's folder is at the same place on all of them.
#
#   cluster/hosts.sh "host1 host2" hparams_search=vae_optuna study=cats hydra.sweeper.storage=postgresql://cats@HOST/cats
#
# Ctrl-C interrupts all of them: trials keep a checkpoint, and the same line goes on.
set -euo pipefail
hosts=$1
shift
words=$(printf '%q ' "$@")
for host in $hosts; do
  # A terminal (-tt) takes Ctrl-C there; each line says where it is from.
  "${SSH:-ssh}" -tt "$host" "cd $(printf %q "$PWD") && .venv/bin/python src/train.py -m $words" </dev/null \
    | sed "s/^/$host: /" &
done
wait
