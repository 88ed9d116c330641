"""Plan how `src/cats.py` spends its budget: the seconds of each part, and the length of a trial that follows.

A trial that is too short says nothing about a longer one, and too few trials are no search. What is known of
`cats_optuna` (docs/decisions.md): after 75 seconds two seeds differ by a quarter in FID, after four or five minutes the
order of the configurations is about that after twelve. What is searched are good configurations, so that a longer
training of the best gains more than a longer search.
"""

import math
from dataclasses import dataclass

from catsweep.errors import ConfigError

# Seconds on two cores that others use too, besides what is trained. What is not used up goes to the last training.
PREPARE, PER_PHOTO = 15.0, 0.15  # the second on one core
START, START_UNCHECKED = 60.0, 30.0  # from the sweep's command to its first trial, with and without the preflight
AROUND = 25.0  # a trial's own start and final scores, beside those of the other slots
ALONE = 10.0  # the same of a training that runs alone
JUDGED_SECONDS = 35.0  # one run by the judge: 20 to 47, by machine
RUNS_JUDGED = 8  # of a sweep: the Pareto set, the best three and the confirmed, some of which are the same
FINISH, FINISH_SHORT = 75.0, 40.0  # choosing, exporting and reporting, with 8 and with 2 draws for the intervals
SHORT = 15 * 60.0  # budgets below have no preflight and no confirmation, and 2 draws
# Budgets below have no judge in the sweep, only of what is trained on, if there is time, and exported.
JUDGED_FROM = 45 * 60.0

SEARCHED = 0.4  # of the time between preparation and export; the confirmation takes about four tenths as much
SEARCHED_SHORT = 0.7
TRIALS = 10  # that are trained to their end; pruning makes more of them
ENOUGH, LONGEST, SHORTEST = 90.0, 15 * 60.0, 20.0  # seconds of training of a trial
ROUNDS, ROUNDS_SHORT = 3, 2  # trials one after another in a slot; of two, one is that which is known to be good
FINALISTS = 4  # that are trained on, one in a slot; a guess. A choice names three runners-up.
TOP = 2  # of the confirmation, which so chooses; with two seeds each, two slots are busy to its end


@dataclass(frozen=True)
class Plan:
    """Seconds of the parts of a budget, none negative."""

    prepare: float
    search: float
    confirm: float  # and the judge, if it is at hand
    train: float  # the best on
    finish: float
    minutes: float  # of training of a trial
    slots: int
    seeds: int  # of the confirmation; 0 for none
    judged: bool  # whether the sweep judges its best
    checked: bool  # whether the sweep begins with a preflight
    draws: int  # of an export, for the intervals

    @classmethod
    def of(cls, budget: float, slots: int, photos: int = 0, judge: bool = False) -> "Plan":
        """Divide a budget, in seconds, with so many photos to prepare; a ConfigError that says the least if it is less.

        >>> hour = Plan.of(3600, slots=2, photos=200)
        >>> [round(part / 60) for part in (hour.prepare, hour.search, hour.confirm, hour.train, hour.finish)]
        [0, 23, 9, 26, 1]
        """
        prepare = PREPARE + PER_PHOTO * photos / slots if photos else 0.0
        short = budget - prepare < SHORT
        finish, start = (FINISH_SHORT, START_UNCHECKED) if short else (FINISH, START)
        finish += JUDGED_SECONDS if judge else 0.0
        least = start + AROUND + SHORTEST
        between = budget - prepare - finish
        if between < least:
            raise ConfigError(
                f"A budget of {budget / 60:.3g} minutes is too small: preparation, one trial, export and report take "
                f"{math.ceil((prepare + finish + least) / 6) / 10:g} minutes. Give that or more: budget=MINUTES."
            )
        search = max(least, (SEARCHED_SHORT if short else SEARCHED) * between)
        trials = search - start
        rounds = ROUNDS_SHORT if short else ROUNDS
        training = min(max(trials * slots / TRIALS - AROUND, ENOUGH), trials / rounds - AROUND, LONGEST)
        training = max(training, SHORTEST)
        seeds = min(2, slots)
        confirm = 0.0 if short else math.ceil(TOP * seeds / slots) * (training + AROUND)
        judged = judge and budget - prepare >= JUDGED_FROM
        confirm = min(confirm + (RUNS_JUDGED * JUDGED_SECONDS if judged else 0.0), between - search)
        return cls(
            prepare, search, confirm, between - search - confirm, finish, minutes=round(training / 60, 2), slots=slots,
            seeds=0 if short else seeds, judged=judged, checked=not short, draws=2 if short else 8,
        )  # fmt: skip

    @property
    def finalists(self) -> int:
        """Number of trials that are trained on, if the search has so many."""
        return min(self.slots, FINALISTS)

    @property
    def run(self) -> float:
        """Seconds of one trial in all."""
        return 60 * self.minutes + AROUND

    @property
    def trials(self) -> int:
        """Number of trials, if none is pruned."""
        start = START if self.checked else START_UNCHECKED
        return max(1, round(self.slots * (self.search - start) / self.run))

    @property
    def confirming(self) -> float:
        """Seconds of the confirmation's runs."""
        return math.ceil(TOP * self.seeds / self.slots) * self.run

    @property
    def timeout(self) -> float:
        """Seconds for `hydra.sweeper.timeout`, with the confirmation; trials that run at its end go on to their own."""
        return self.search + self.confirming if self.seeds else self.search - self.run

    @property
    def least_timeout(self) -> float:
        """Seconds up to which the sweeper refuses a timeout, since it leaves no time for a trial."""
        return self.run + self.confirming if self.seeds else 0.0

    @property
    def confirm_word(self) -> str:
        """What `hydra.sweeper.confirm` is, in Hydra's grammar."""
        return f"{{top: {TOP}, seeds: {self.seeds}}}" if self.seeds else "null"

    def rows(self) -> list[tuple[str, float, str]]:
        """List the parts: name, seconds, what is done in them."""
        long = f"{self.minutes:.2g} minutes" if self.minutes >= 1 else f"{60 * self.minutes:.0f} seconds"
        words = f"about {self.trials} trials of {long} in {self.slots} slot{'s' if self.slots > 1 else ''}"
        again = f"the best {TOP} under {self.seeds} other seed{'s' if self.seeds > 1 else ''} each"
        those = f"the best {self.finalists} side by side" if self.finalists > 1 else "the best one"
        found = [
            ("prepare the photos", self.prepare, ""),
            ("search", self.search, f"{words}; those that fall behind end sooner"),
            ("confirm", self.confirm, again + ("; a judge looks at them" if self.judged else "")),
            ("train the best on", self.train, f"{those}, and for what the others leave over"),
            ("export and report", self.finish, ""),
        ]
        return [row for row in found if row[1] > 0]
