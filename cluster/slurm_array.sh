#!/bin/bash
# Several controllers of one study as a job array of SLURM, one slot each. From the project's folder:
#
#   mkdir -p outputs
#   sbatch --array=0-7 --gres=gpu:1 --time=4:00:00 cluster/slurm_array.sh \
#     hparams_search=vae_optuna study=cats trainer=gpu hydra.sweeper.storage=postgresql://cats@HOST/cats
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
  while kill -0 "$controller" 2>/dev/null; do wait "$controller"; done  # a second TERM ends a wait, too
  # By its own name: the number of an array's last task is that of the whole array.
  job=$SLURM_JOB_ID
  if [ "${SLURM_ARRAY_TASK_ID-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  # A job that somebody cancelled gets a TERM, too, and is to stay out of the queue.
  if scontrol show job -o "$job" | grep -q ' JobState=RUNNING '; then
    exec scontrol requeue "$job"
  fi
fi
exit "$code"
