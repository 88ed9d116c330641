"""Which trials are confirmed, in which order, and what is said of the outcome."""

import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.steady.searches import Direction, study

from catsweep.metrics.judge import RunScores, confirmation_table, of_confirmation
from steady.confirm.confirmation import compare, plan, read
from steady.exceptions import StudyError
from steady.study import meta


class TestPlan:
    def test_all_have_the_same_seeds_and_none_the_search_s_own(self) -> None:
        runs = plan([7, 3, 5], 4, base_seed=10)
        seeds = {number: [run[meta.SEED] for run in runs if run[meta.CONFIRMS] == number] for number in (7, 3, 5)}
        assert seeds == {number: [11, 12, 13, 14] for number in (7, 3, 5)}

    def test_wherever_it_ends_all_have_about_as_many(self) -> None:
        runs = plan([7, 3, 5], 4, base_seed=0)
        for end in range(len(runs)):
            counts = Counter({7: 0, 3: 0, 5: 0}) + Counter(run[meta.CONFIRMS] for run in runs[:end])
            found = [counts[number] for number in (7, 3, 5)]
            assert max(found) - min(found) <= 1

    def test_seeds_stay_seeds(self) -> None:
        assert [run[meta.SEED] for run in plan([0], 2, base_seed=2**32 - 2)] == [2**32 - 1, 0]


class TestReport:
    SEARCH = ([40.0, 0.5], [41.0, 0.6], [42.0, 0.7], [60.0, 0.1])
    RUNS = (
        *((0, s, (v, 0.5)) for s, v in ((1, 50.0), (2, 52.0), (3, 51.0))),
        *((1, s, (v, w)) for s, v, w in ((1, 43.0, 0.4), (2, 45.0, 0.6), (3, 44.0, 0.5))),
        *((2, s, (v, 0.7)) for s, v in ((1, 44.0, ), (2, 44.0), (3, 45.0))),
    )  # fmt: skip

    def done(self, runs: Any = RUNS, directions: Sequence[Direction] = ("minimize", "maximize")) -> Any:
        return compare(study(*self.SEARCH, directions=directions), runs, ["val/fid", "val/ssim"], directions)

    def test_the_winner_is_the_best_mean_of_the_new_seeds(self) -> None:
        found = self.done()
        assert [one.trial for one in found.candidates] == [1, 2, 0]
        assert found.winner.mean() == 44.0
        assert found.winner.spread() == 1.0
        assert found.winner.mean(1) == pytest.approx(0.5)
        assert found.winner.spread(1) == pytest.approx(0.1)
        assert found.winner.searched == (41.0, 0.6)
        assert self.done(directions=["maximize", "maximize"]).winner.trial == 0

    def test_tied_are_those_that_are_not_significantly_different(self) -> None:
        assert self.done().tied == (2,)  # a point behind with a point of noise; trial 0 is seven behind at each seed
        apart = [(n, s, (v + (5 if n == 2 else 0), w)) for n, s, (v, w) in self.RUNS]
        assert self.done(apart).tied == ()

    def test_of_one_seed_all_are_tied(self) -> None:
        found = self.done([run for run in self.RUNS if run[1] == 1])
        assert found.winner.spread() is None
        assert found.tied == (2, 0)

    def test_runs_that_failed_are_missing_and_counted(self) -> None:
        found = self.done([*(run for run in self.RUNS if run[:2] != (1, 2)), (1, 2, (math.inf, 0.0))])
        assert found.winner.trial == 1
        assert found.winner.mean() == 43.5
        assert "over 2 of 3 other seeds" in found.sentence()
        with pytest.raises(StudyError, match="finite"):
            self.done([(1, 2, (math.nan, 0.0))])

    def test_seeds_that_only_some_have_do_not_count(self) -> None:
        hard = [(0, 1, [40.0]), (0, 2, [60.0]), (1, 1, [45.0])]  # seed 2 is hard for all
        found = compare(study([4.0], [5.0]), hard, ["fid"], ["minimize"])
        assert found.winner.trial == 0
        assert found.compared.mean() == 40
        assert found.sentence() == (
            "Confirmed: trial 0, fid 40 over 1 of 2 other seeds; it is not significantly different from trial 1."
        )
        apart = compare(study([4.0], [5.0]), [(0, 1, [4.0]), (1, 2, [3.0])], ["fid"], ["minimize"])
        assert apart.winner.trial == 1
        assert apart.shared_seeds == [1, 2]

    def test_all_that_stand_before_a_confirmed_one_were_considered(self) -> None:
        made = study([4.0], [1.0], [2.0], [3.0])
        found = compare(made, [(1, 1, [9.0]), (3, 1, [8.0])], [], ["minimize"])  # both runs of trial 2 crashed
        assert found.considered == (1, 2, 3)
        assert found.objectives == ("value",)

    @pytest.mark.parametrize(
        ("trials", "wanted"),
        [
            ((0, 1, 2), "trial 1, val/fid 44 ± 1 over 3 other seeds; it is not significantly different from trial 2."),
            ((0, 1), "trial 1, val/fid 44 ± 1 over 3 other seeds; it is better than trial 0."),
            ((0,), "trial 0, val/fid 51 ± 1 over 3 other seeds; there was no other to compare it with."),
        ],
    )
    def test_the_sentence_says_it_all(self, trials: tuple[int, ...], wanted: str) -> None:
        assert self.done([run for run in self.RUNS if run[0] in trials]).sentence() == f"Confirmed: {wanted}"

    def test_the_table_has_the_search_beside_the_means(self) -> None:
        console = Console(file=io.StringIO(), width=120)
        self.done().print(console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        rows = [
            [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")
        ]
        assert rows == [
            ["1", "44 ± 1", "41", "0.5 ± 0.1", "0.6", "3", "winner"],
            ["2", "44.333 ± 0.577", "42", "0.7 ± 0", "0.7", "3", "not significantly different"],
            ["0", "51 ± 1", "40", "0.5 ± 0", "0.5", "3", ""],
        ]
        assert "Confirmed: trial 1" in text

    def test_what_the_runs_have_beside_the_objectives_has_columns(self) -> None:
        def scores(**values: float) -> RunScores:
            return RunScores({f"val/{name}": value for name, value in values.items()})

        again = {1: {seed: scores(recall=seed / 4, ssim=9.0) for seed in (1, 2, 7)}, 2: {1: scores(recall=0.5)}, 5: {}}
        found = self.done()
        told = of_confirmation(found, again)
        assert told == {"val/recall": {1: "0.375 ± 0.177", 2: "0.5"}}  # 7 is none of its seeds
        console = Console(file=io.StringIO(), width=160)
        found.print(console, confirmation_table(found, told))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "recall ↑" in text
        assert "0.375 ± 0.177" in text


class TestFile:
    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        found = TestReport().done()
        folder = tmp_path / "sweeps" / "s"
        found.write(folder)
        found.write(folder)
        assert read(folder) == found
        assert [path.name for path in folder.iterdir()] == ["confirmation.json"]

    def test_people_can_read_it(self, tmp_path: Path) -> None:
        TestReport().done().write(tmp_path)
        content = json.loads((tmp_path / "confirmation.json").read_text())
        assert (content["winner"], content["tied"], content["considered"]) == (1, [2], [0, 1, 2])
        assert content["objectives"][1] == {"name": "val/ssim", "direction": "maximize"}
        assert content["candidates"][0] == {
            "trial": 1,
            "searched": {"val/fid": 41.0, "val/ssim": 0.6},
            "seeds": 3,
            "mean": {"val/fid": 44.0, "val/ssim": pytest.approx(0.5)},
            "spread": {"val/fid": 1.0, "val/ssim": pytest.approx(0.1)},
            "values": {
                "1": {"val/fid": 43.0, "val/ssim": 0.4},
                "2": {"val/fid": 45.0, "val/ssim": 0.6},
                "3": {"val/fid": 44.0, "val/ssim": 0.5},
            },
        }

    def test_a_kill_while_writing_leaves_the_earlier_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = TestReport().done()
        found.write(tmp_path)
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            compare(study([1.0]), [(0, 1, [1.0])], [], ["minimize"]).write(tmp_path)
        assert read(tmp_path) == found
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"objectives": [], "candidates": [], "winner": 1}'])
    def test_another_file_of_that_name_is_an_error(self, tmp_path: Path, content: str) -> None:
        assert read(tmp_path) is None
        (tmp_path / "confirmation.json").write_text(content)
        with pytest.raises(ValueError, match=r"confirmation\.json cannot be read"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            (("candidates", 0, "values"), {}),
            (("candidates", 0, "values", "1", "val/fid"), math.inf),
            (("candidates", 1, "searched"), [41.0, 0.6]),
            (("tied",), ["\x1b[2J"]),
            (("considered",), [[1]]),
        ],
    )
    def test_what_cannot_be_compared_or_put_into_words_is_refused_when_it_is_read(
        self, tmp_path: Path, at: tuple[str | int, ...], value: object
    ) -> None:
        content: Any = TestReport().done().to_dict()
        inner = content
        for key in at[:-1]:
            inner = inner[key]
        assert inner[at[-1]]
        inner[at[-1]] = value
        (tmp_path / "confirmation.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"confirmation\.json cannot be read"):
            read(tmp_path)
