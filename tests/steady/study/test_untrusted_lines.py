import shlex

import pytest

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady.study.untrusted import is_plain, plain_line

pytestmark = pytest.mark.security
SWEEP = ["src/train.py", "-m", "hparams_search=vae_optuna", "study=my cats", "trials=30", "logger=none", "~schedule"]
SWEEP += ["hydra.sweeper.confirm={top: 1, seeds: 1}", "hydra.sweep.dir=outputs/cats", "model.latent_size=choice(8,16)"]


def test_a_sweep_of_ours_is_repeated() -> None:
    assert is_plain(SWEEP)
    assert plain_line(shlex.join(["python", *SWEEP])) == shlex.join(["python", *SWEEP])
    assert plain_line("python apps/my_app.py --multirun db.driver=mysql +x=1") != ""
    assert not is_plain(["my_app.py", "-m"])


NAMING = [  # code, files or other places
    *("_target_", "defaults", "sampler", "pruner", "storage", "custom_search_space", "preload", "preflight"),
    *("artifacts", "extra_scores", "on_end", "next_step", "contract_ignore", "record"),
]


def test_each_key_of_the_sweeper_is_repeated_that_names_no_code_and_no_place() -> None:
    for key in vars(SteadySweeperConf()):
        assert is_plain(["src/train.py", "-m", f"hydra.sweeper.{key}=1"]) == (key not in NAMING), key
    words = ["sampler.seed=7", "sampler.n_startup_trials=20", "pruner.n_warmup_steps=2", "params.lr=choice(1, 2)"]
    assert is_plain(["src/train.py", "-m", *(f"hydra.sweeper.{word}" for word in words)])
    assert is_plain(["src/train.py", "-m", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=median"])


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import os; os.system('id')", "-m"], ["-m"], ["-", "-m"], ["src/train.py;id", "-m"], [], None, "-m", [1],
        ["/tmp/x.py", "-m"], ["../x.py", "-m"], ["sweeps/evil/x.py", "-m"], ["-x.py", "-m"], ["$(id).py", "-m"],
        *(["src/train.py", "-m", word] for word in (
            "trust=[os.*]", "+trust=[os.*]", "++trust=[os]", "-cp=/tmp/evil", "--config-dir=/tmp", "-c", ";id", "id",
            ">x", "|", "model._target_=os.system", "model={_target_: os.system}", "seed=${oc.env:KEY}", "a=\x1b[2J",
            "hydra.sweeper.preflight=os.system", "hydra.sweeper.on_end=os.system", "hydra.sweeper.storage=mysql://x",
            "hydra.sweeper.params={trust: [os]}", "hydra/launcher={a: 1}", "hydra.run.dir=/etc", "hydra.searchpath=[x]",
            "hydra.sweeper.sampler._target_=os.system", "hydra.sweeper.sampler.a._target_=os.system",
            "hydra.sweeper.sampler.independent_sampler={_target_: os.system}", "hydra.sweeper.pruner._partial_=true",
            "hydra/sweeper/x=y", "resume=/tmp/x", "seed=1\nid", "logger={_x: 1}", "hydra.sweeper.preload=[evil]",
        )),
    ],
)  # fmt: skip
def test_nothing_else_is(words: object) -> None:
    assert not is_plain(words)
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        line = plain_line(shlex.join(["python", *words]))
        assert line == ""


@pytest.mark.parametrize("line", ["bash -c id", "python 'x", "python src/train.py -m > x", "python a.py -m; id", 3, ""])
def test_no_line_of_a_shell_is(line: object) -> None:
    assert plain_line(line) == ""
