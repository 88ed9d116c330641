"""How a command of the documents is made small, what it is given for its placeholders, and how it ends here.

Nothing is left out of a command: words are added after its own, and the later of two wins.
"""

import re

TRAIN = [
    "data.size=32", "data.batch_size=16", "depth.halvings=3", "width.channels=4", "metrics.samples=16",
    "metrics.rung_samples=16", "epochs=1", "eval_every=1", "trainer.threads=1", "trainer.precision=32-true",
]  # fmt: skip
SWEEP = ["hydra.sweeper.n_jobs=1", "trials=1"]
FIRST = ["model=vae"]  # of `make sweep`: what the pages do with photos wants a VAE
STEADY = ["hydra.sweeper.preflight=null"]  # a look at data and scores before the first trial
PREPARE = ["size=32"]
# For words of a command: what is added because of them.
BECAUSE = {
    "augment.copies=75": ["augment.copies=2"],
    "hydra.sweeper.confirm={top: 3, seeds: 3}": ["hydra.sweeper.confirm={top: 1, seeds: 1}"],
    "steady.storage.proxy": ["--patience=0"],
    "steady.watch.dashboard": ["--port=0"],
    "trainer=ddp": ["trainer.devices=1"],
    "trainer=gpu": ["trainer.accelerator=cpu"],
    "verify=serve": ["verification.port=0"],
}
PLACEHOLDERS = {
    r"\bDIR\b": "my_cats",
    r"\b(NAME|my_cats)-64\b": "my_cats-32",
    r"\bOTHER\b": "others",
}

# What is not run, and why.
NOT_RUN = {
    ". .venv/bin/activate": "changes the shell of the person who types it",
    "make setup": "installs everything; continuous integration does it first (.ci/run)",
    "make test": "would run this test again",
    "make coverage": "would run this test again",
    "make lint": "continuous integration runs it (.ci/run)",
    "make format": "changes the source",
    "make cats": "takes as long as it says; tests/cats/test_steps.py has a small one",
    "python src/cats.py": "takes as long as it says; tests/cats/test_steps.py has a small one",
    "make bench": "measures for minutes",
    "python src/train.py -m hparams_search=vae_optuna study=cats hydra/launcher=slurm": "needs a SLURM: tests/engines",
    "sbatch ": "needs a SLURM; tests/engines has one, and runs the script",
    "cluster/hosts.sh ": "needs hosts to log in to",
    "docker compose ": "needs an engine of containers",
    "export ": "sets a variable of the shell of the person who types it",
    "make gpu-check": "needs a GPU; tests/gpu has its tests",
    "pip ": "installs",
    "python src/train.py logger=trackio": "needs a package that continuous integration does not install",
    "TRACKIO_DIR=": "likewise",
    "pre-commit install": "changes the git repository",
}

# What asks for something that is not here: exit code, and a word of what it says then.
ENDS = {
    "python src/prepare.py data=kaggle_cats download=true": (1, "kagglehub|Kaggle"),
    "python src/prepare.py data=hub_cats data.source=USER/NAME": (1, "public image set"),
    "background/remover=onnx": (1, "make background-model"),
    "storage=postgresql://": (1, "needs a package that is not installed|cannot be used"),
    "steady.storage.proxy": (1, "grpcio|needs a package that is not installed|cannot be used"),
    "hydra/launcher=ray": (1, "needs Ray|Ray cannot be reached"),
    "make leet": (1, "TTY"),
    "wandb sync": (1, "No API key"),
    "make wandb-sync": (1, "key"),
    "wandb sweep": (1, "key|log"),
    "wandb agent": (1, "key|log"),
    "push=hub": (1, "push=hub will not reach its server"),
    "model.source=stabilityai/": (1, "network once|local folder"),
}

# What serves until it is told to end.
SERVES = {"make dashboard", "make demo", "steady.watch.dashboard", "verify=serve"}


def filled(command: str) -> str:
    """The command with something for each of its placeholders."""
    for pattern, value in PLACEHOLDERS.items():
        command = re.sub(pattern, value, command)
    return command


def added(argv: list[str]) -> list[str]:
    """What is put behind the words of a Python command to make it small."""
    program, words = argv[0].rpartition("/")[2], argv[1:]
    if "--help" in words or "--cfg" in words:
        return []
    extra: list[str] = []
    if program == "train.py":
        demo = not any(word.startswith("data=") and word != "data=demo_cats" for word in words)
        recorded = not words or any("logger" in word for word in words)  # the plain command, by wandb in files
        extra = TRAIN + ["data.reader.n=32"] * demo + ["logger=none"] * (not recorded)
        extra += SWEEP * ("-m" in words) + FIRST * ("study=first" in words)
        extra += STEADY * ("-m" in words and "hydra/sweeper=optuna" not in words)
        if "hparams_search=cats_optuna" in words:  # of these only the tutorial's is confirmed
            extra += [
                "hydra.sweeper.confirm={top: 1, seeds: 1}" if "study=my_cats" in words else "hydra.sweeper.confirm=null"
            ]
    elif program == "prepare.py":
        extra = PREPARE + ["data.reader.n=24"] * (not any(word.startswith("data=") for word in words))
    elif program == "export.py":
        extra = ["draws=2"]
    return [*extra, *(word for cause, more in BECAUSE.items() if cause in words for word in more)]
