"""What sweeps of the fake app have left in a folder, for the tests of the whole sweeper."""

from pathlib import Path

import optuna

from steady.study import meta

PROMOTION = (
    "reports=true", "hydra.sweeper.promotion={eta: 3, rungs: [1, 2, 4]}", "hydra.sweeper.prune_metric=loss",
)  # fmt: skip


def load(place: Path, name: str = "fake") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{place}/sweeps/{name}/study.db")


def states(place: Path) -> list[str]:
    return [trial.state.name for trial in load(place).trials]


def steps(place: Path, number: int) -> list[list[str]]:
    return [line.split() for line in (place / f"out/fake/{number}/steps.txt").read_text().splitlines()]


def steps_done(place: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in place.glob("out/fake/*/steps.txt"))


def snapshot(place: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in place.rglob("*") if path.is_file() and not path.name.startswith("study.db"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def whole(place: Path, n: int) -> None:
    """Every number once, every folder its own trial's, every step done once."""
    study = load(place)
    assert [trial.number for trial in study.trials] == list(range(n))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    folders = {path.name for path in (place / "out/fake").iterdir() if path.is_dir() and path.name != ".submitit"}
    assert folders == {str(number) for number in range(n)}
    for trial in study.trials:
        lines = steps(place, trial.number)
        assert [line[0] for line in lines] == ["0", "1", "2", "3"]
        assert {(float(line[1]), line[2]) for line in lines} == {(trial.params["x"], trial.params["y"])}
        assert trial.values == [trial.params["x"] ** 2 + "abc".index(trial.params["y"])]


def halved(place: Path, n: int) -> None:
    """As `whole`, of a sweep with PROMOTION: each trial did the steps up to its rung once, and the best went on."""
    study, reached = load(place), {1: 0, 2: 0}
    assert [trial.number for trial in study.trials] == list(range(n))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    for trial in study.trials:
        rungs = [int(step) for step in trial.user_attrs[meta.RUNGS]]
        ended = 4 if trial.state.name == "COMPLETE" else max(rungs)
        assert [line[0] for line in steps(place, trial.number)] == ["0", "1", "2", "3"][:ended]
        for step in reached:
            reached[step] += step in rungs
    assert reached[1] == n
    assert n // 3 <= reached[2] < n
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) >= reached[2] // 3
    best = sorted(study.trials, key=lambda trial: trial.user_attrs[meta.RUNGS]["1"]["loss"])[: n // 3]
    assert all("2" in trial.user_attrs[meta.RUNGS] for trial in best)
