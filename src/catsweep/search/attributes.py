"""What is written on the trials of a study besides parameters and values: user attributes, which Optuna's tools show.

Hydra's override grammar has no colon in a key, so none of these is ever the name of a parameter; values of parameters
that are fixed are user attributes too, as in hydra-optuna-sweeper.
"""

ATTEMPT = "catsweep:attempt"  # how often the trial was taken up again
RUNS = "catsweep:runs"  # slot, start and end (Unix time) of each attempt
OUTCOME = "catsweep:outcome"  # of the last attempt, see `outcome.Kind`
MESSAGE = "catsweep:message"  # one line
TRACEBACK = "catsweep:traceback"
LOG = "catsweep:log"  # the folder with the trial's own output
FOLDER = "catsweep:folder"  # where it works, within the sweep's folder; not written if that is its number
LOSSES = "catsweep:losses"  # how often its process was lost
RUNGS = "catsweep:rungs"  # scores by rung
DUPLICATE_OF = "catsweep:duplicate_of"  # number of the trial whose values it took
CONFIRMS = "catsweep:confirms"  # of a confirmation run: number of the trial that it confirms
SEED = "catsweep:seed"  # of a confirmation run
