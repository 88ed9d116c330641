#!/bin/bash
# Several controllers of one study as a job array of SLURM, one slot each. From the project's folder:
#
#   mkdir -p outputs
#   sbatch --array=0-7 --gres=gpu:1 --time=4:00:00 cluster/slurm_array.sh \
#     hparams_search=vae_optuna study=cats hydra.sweeper.storage=postgresql://cats@HOST/cats
#
# Before the time limit, and when the job is preempted, its controller is interrupted: the trial keeps a checkpoint, and
# the task goes back into the queue under the same number. Whichever task is free goes on with the trial.
#SBATCH --job-name=catsweep
#SBATCH --cpus-per-task=4
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=outputs/slurm-%A_%a.log

"${PYTHON:-.venv/bin/python}" "${APP:-src/train.py}" -m hydra.sweeper.n_jobs=1 "$@" &
controller=$!
interrupted=
trap 'interrupted=1; kill -TERM "$controller"' TERM
wait "$controller"
code=$?
if [ "$interrupted" ]; then
  wait "$controller"
  # A job that somebody cancelled gets a TERM, too, and is to stay out of the queue.
  if scontrol show job -o "$SLURM_JOB_ID" | grep -q ' JobState=RUNNING '; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
