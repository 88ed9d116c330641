"""Write report.html and report.md with its pictures: `python src/report.py`.

Both have one context of `ReportData`; charts are drawn once, as SVG. A running sweep can be reported at any time. All
texts of a study are escaped by `catsweep.templates`; report.html is a single file and requests nothing.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import optuna
from markupsafe import Markup
from omegaconf import DictConfig

from catsweep import templates
from catsweep.folders import replacing_folder
from catsweep.grids import Images, save_png
from catsweep.metrics.judge import RunScores, better, of_confirmation
from catsweep.ownership import FolderKind, require_file
from catsweep.report import formatting
from catsweep.report.optuna_plots import plotly_library
from catsweep.report.report_charts import Plot, arrow, brief
from catsweep.report.report_data import ReportData, collect
from catsweep.report.sample_images import CELL, data_uri, samples, sheet, side_by_side
from catsweep.study_record import Entry, failures, first_line
from steady import places
from steady.atomic import write_text
from steady.printing import Markdown, fenced, preformatted, readable, say
from steady.storage.location import study_folder

HERE = Path(__file__).parent
PAGE, TEMPLATE = "report.html", "report.html.jinja"
MARKDOWN, PICTURES = "report.md", "report"
TITLE = ": what the sweep found"  # in both reports, by which ours are known
CHARTS = ("history", "importance", "parallel", "pareto", "second_opinion", "slices_*", "timeline")
PHOTOS = ("exported.png", "pareto_samples.png", "reconstructions.png", "seeds_*.png", "winner.png")
DRAWN = FolderKind(
    "the pictures of a report", "sweeps=DIR",
    (*PHOTOS, *(f"{name}.{kind}" for name in CHARTS for kind in ("svg", "png"))),  # PNG: of earlier versions
)  # fmt: skip
STRIP = (4, 2)  # columns and rows of the samples of one trial
STRIPS = 300  # trials in the table of report.html with samples, about 15 kB each
FRONT = 5  # Pareto-optimal trials whose samples are beside report.md
SEED = (4, 4)  # of the samples of a confirmed trial under one seed
SHARE = (6, 6)  # of the winner's samples, and of the real cats beside them
IMPORTANCE_ROW, TIMELINE_ROW = 36, 54  # heights of a parameter and of a slot, units of the SVG
GAP, TITLED = 28, 26  # between charts of a picture, and above one with a title


class Chart(NamedTuple):
    """A chart as SVG, with its size in a picture and what is said about it."""

    svg: Markup
    width: float
    height: float
    title: str = ""
    note: str = ""


class Row(NamedTuple):
    """A trial in the table."""

    trial: Entry  # the trial
    rank: int  # from 1
    strip: str  # data URI of some samples; empty without any
    link: str  # relative URL of its folder; empty if it does not exist
    label: str  # `winner`, `Pareto-optimal`, or how the trial ended
    scores: Mapping[str, float]  # beside the objectives


def run(cfg: DictConfig) -> Path:
    """Write both reports, print where, and return the path of report.html; see `conf/report.yaml`.

    Raises:
        ExportError: there is no such study, or `select` is the number of no finished trial, or none was judged.
        ConfigError: `select` means nothing for this study.
        PlaceError: the study's folder cannot be written.
        TakenError: a file of that name exists that is no report.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of infinite scores are in the report
    folder = study_folder(Path(cfg.sweeps), None if cfg.study is None else str(cfg.study), cfg.get("storage"))
    places.check(folder, cfg)
    data = collect(folder, Path(cfg.outputs) / folder.name, Path(cfg.ready), cfg.select, bool(cfg.plotly))
    report, path = Report(data, folder), folder / PAGE
    for page in (path, folder / MARKDOWN):
        require_file(page, TITLE, "sweeps=DIR")
    write_text(path, report.html())
    beside = report.write_markdown()
    told = f"{formatting.counted(len(data.record.trials), 'trial')} of study {folder.name}"
    say(f"{told}: {path} ({path.stat().st_size / 1e6:.1f} MB), and {beside}")
    return path


class Report:
    """The report of a study in a folder, from which links to run folders start; equal data give equal reports."""

    def __init__(self, data: ReportData, home: Path) -> None:
        self.data, self.home = data, home
        self._trials = {trial.number: trial for trial in data.record.trials}

    def html(self) -> str:
        """Render report.html."""
        data = self.data
        context = {
            **self._context,
            "charts": self.charts,
            "lying": self._parallel("parallel_lying"),
            "sides": [data_uri(sheet(some, *SHARE)) if len(some) else "" for some in (data.samples, data.real)],
            "drawn": data_uri(sheet(data.drawn, *SHARE)) if len(data.drawn) else "",
            "reconstructions": "" if data.reconstructions is None else data_uri(data.reconstructions),
            "seeds": [
                (trial, [(one, data_uri(sheet(one.images, *SEED))) for one in runs])
                for trial, runs in (data.second.seeds if data.second else {}).items()
            ],
            "cards": self._cards(),
            "library": plotly_library() if data.plots else "",
        }
        return _environment().get_template(TEMPLATE).render(context).lstrip()

    def write_markdown(self) -> Path:
        """Write report.md and its pictures into the folder of the report, and return the path of report.md."""
        with replacing_folder(self.home / PICTURES, DRAWN) as folder:
            self._write_pictures(folder)
            pictures = {path.name for path in folder.iterdir()}
        keys = list(dict.fromkeys(key for card in self.data.record.cards.values() for key in card))
        more = {"pictures": pictures, "strips": list(self._front_strips), "card_keys": keys}
        page = _environment(False).get_template("report.md.jinja").render(self._context | more)
        write_text(self.home / MARKDOWN, page)
        return self.home / MARKDOWN

    @cached_property
    def charts(self) -> dict[str, list[Chart]]:
        """The charts by the name of their picture; empty lists for charts without data."""
        data, charts, draw = self.data, self.data.charts, _charts_module()

        def plots(found: Sequence[Plot], radius: float, numbered: bool = False) -> list[Chart]:
            drawn = [(p, draw.plot(p, radius, numbered)) for p in found]
            return [Chart(svg, p.area.width, p.area.height, "" if p.y_title else p.title) for p, svg in drawn]

        return {
            "pareto": plots(charts.pareto(), 6, numbered=True),
            "second_opinion": plots(charts.judged(), 6, numbered=True),
            "history": plots(charts.history(), 5),
            **{f"slices_{i}": plots(found, 4.5) for i, found in enumerate(charts.slices(data.names))},
            "parallel": self._parallel("parallel"),
            "importance": [
                Chart(
                    draw.importance(one.shares, IMPORTANCE_ROW) if one.shares else Markup(""), 440,
                    IMPORTANCE_ROW * len(one.shares), f"for {data.record.labels[one.objective]}", one.note,
                )
                for one in data.importances
            ],
            "timeline": [Chart(draw.timeline(line, TIMELINE_ROW), 940, TIMELINE_ROW * len(line.lanes) + 18)]
            if (line := data.timeline) else [],
        }  # fmt: skip

    def _parallel(self, macro: str) -> list[Chart]:
        found = self.data.charts.parallel(self.data.names)
        return [Chart(getattr(_charts_module(), macro)(found), 1040, 400)] if found else []

    @cached_property
    def _context(self) -> dict[str, Any]:
        """What both templates are given."""
        data, record, winner = self.data, self.data.record, self.data.winner
        return {
            "data": data, "record": record, "winner": winner, "best": data.best, "front": winner.front,
            "line": data.timeline, "second": data.second, "reproduction": data.reproduction,
            "exported": data.exported,
            "labels": record.labels, "arrows": [arrow(one) for one in record.objectives],
            "names": list(record.distributions), "beside": record.beside, "failures": failures(record),
            "again": of_confirmation(winner.confirmed, record.opinion.again) if winner.confirmed else {},
            "rows": [self._row(rank, self._trials[number]) for rank, number in enumerate(record.ranked, start=1)],
        }  # fmt: skip

    def _row(self, rank: int, trial: Entry) -> Row:
        number, winner = trial.number, self.data.winner
        strip = _strip(trial) if rank <= STRIPS or number in winner.front else None
        label = "winner" if number == winner.number else "Pareto-optimal" if number in winner.front else trial.state
        return Row(
            trial, rank, "" if strip is None else data_uri(strip, quality=80), formatting.link(trial.run, self.home),
            label, self.data.record.opinion.own.get(number, RunScores()).values,
        )  # fmt: skip

    def _cards(self) -> list[dict[str, Any]]:
        """Group metric cards by the score's label: those of the objectives, and others."""
        own = [objective.name for objective in self.data.record.objectives]
        cards = [(score in own, self.data.record.label(score), card) for score, card in self.data.record.cards.items()]
        return [{label: card for is_own, label, card in cards if is_own == wanted} for wanted in (True, False)]

    @cached_property
    def _front_strips(self) -> dict[int, Images]:
        strips = {number: _strip(self._trials[number]) for number in self.data.winner.front[:FRONT]}
        return {number: strip for number, strip in strips.items() if strip is not None}

    def _write_pictures(self, folder: Path) -> None:
        data = self.data
        if len(data.samples):
            sides = [sheet(some, *SHARE, padding=2) for some in (data.samples, data.real) if len(some)]
            save_png(folder / "winner.png", side_by_side(*sides))
        if len(data.drawn):
            sides = [sheet(some, *SHARE, padding=2) for some in (data.drawn, data.real) if len(some)]
            save_png(folder / "exported.png", side_by_side(*sides))
        if data.reconstructions is not None:
            save_png(folder / "reconstructions.png", data.reconstructions)
        if self._front_strips:
            save_png(folder / "pareto_samples.png", side_by_side(*self._front_strips.values()))
        for trial, runs in (data.second.seeds if data.second else {}).items():
            sheets = [sheet(one.images, *SEED, padding=2) for one in runs]
            save_png(folder / f"seeds_{trial}.png", side_by_side(*sheets))
        for name, charts in self.charts.items():
            if drawn := [chart for chart in charts if chart.svg]:
                write_text(folder / f"{name}.svg", _picture(drawn, columns=4 if name.startswith("slices") else 2))


def _picture(charts: Sequence[Chart], columns: int) -> str:
    """Compose a picture of charts in rows, in the colours of a light page, for programs that know no CSS variables."""
    columns = min(columns, len(charts))
    wide, y = max(chart.width for chart in charts), float(GAP)
    placed = []
    for row in (charts[i : i + columns] for i in range(0, len(charts), columns)):
        y += TITLED if any(chart.title for chart in row) else 0
        placed += [(chart, GAP + i * (wide + GAP), y) for i, chart in enumerate(row)]
        y += max(chart.height for chart in row) + GAP
    css = (HERE / "charts.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--\w+): (#\w+)", css))
    style = re.sub(r"var\((--\w+)\)", lambda variable: colours[variable[1]], css.partition("}\n")[2])
    size = {"width": GAP + columns * (wide + GAP), "height": y}
    return _environment().get_template("picture.svg.jinja").render(placed=placed, style=Markup(style), **size)


@cache
def _environment(html: bool = True) -> jinja2.Environment:
    """Make the environment of the templates, with the report's filters."""
    environment = templates.environment(HERE, html)
    for filter_ in (formatting.shown, formatting.parameter, formatting.duration, formatting.moment, formatting.listed,
                    formatting.breakable, better, readable, first_line, preformatted):  # fmt: skip
        environment.filters[filter_.__name__] = filter_
    environment.filters.update(
        md=Markdown, fenced=lambda text: Markdown("\n".join(fenced(text))), card_value=_card_value
    )
    environment.globals.update(counted=formatting.counted, short=formatting.short, brief=brief)
    return environment


@cache
def _charts_module() -> Any:
    """Return the macros of charts.jinja, which return SVG."""
    return _environment().get_template("charts.jinja").module


def _strip(trial: Entry) -> Images | None:
    images = samples(trial.run)
    return sheet(images, *STRIP, cell=CELL) if len(images) else None


def _card_value(value: Any) -> str:
    """Format a value of a metric card; digests are cut."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {formatting.shown(item)}" for key, item in value.items())
    text = "" if value is None else formatting.shown(value)
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text
