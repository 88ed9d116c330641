"""Serve Optuna's dashboard on a study, also while it runs, with the pictures of its trials: `make dashboard`.

Writes nothing but, with `--storage`, where the study is kept. The note on the study's page is made whenever the page
asks for it, until a person writes one.
"""

from steady.signals import COMMAND  # isort: skip  # first: from here on Ctrl-C is one line

import argparse
import errno
import re
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

import optuna
from optuna.storages import BaseStorage

from steady import storage
from steady.confirm import confirmation
from steady.exceptions import ConfigError, SteadyError, StudyError
from steady.local_server import HOST, OTHER, LocalRequestHandler, with_headers
from steady.options import SWEEPS
from steady.printing import code, plain, readable, say
from steady.storage import CONFIRMATION, LEASES, location
from steady.study import meta, results, select
from steady.study.artifacts import FOLDER, Store
from steady.study.untrusted import plain_line

# Beside optuna-dashboard's own, which its pages carry. Pictures of trials may be whatever a stranger's study holds.
POLICY = "frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'"
ARTIFACTS = "/artifacts/"
PORT = "a whole number from 0 to 65535"
NOTE = "dashboard:note_"  # how the keys of a study's note begin, see `optuna_dashboard._note`


def main(words: list[str] | None = None) -> None:
    """Serve the dashboard until Ctrl-C; a SystemExit says that there is no such study, or no optuna-dashboard."""
    parser = argparse.ArgumentParser(description="Look at a study in the browser.")
    parser.add_argument("study", nargs="?", help="its name; the one written last if it is not given")
    parser.add_argument("--port", default="8080", help=PORT)
    parser.add_argument(
        "--next-step",
        default="",
        help="what hydra.sweeper.next_step says, with {study} for the name: shown only for studies that say the same, "
        "since a study of somebody else's could advise anything",
    )
    parser.add_argument("--storage", help="URL of the study's storage, if sweeps/<study>/ does not say; noted there")
    given = parser.parse_args(words)
    COMMAND.at_work = True
    try:
        folder = location.study_folder(SWEEPS, given.study, given.storage)
        server = serve(location.open_study(folder)._storage, folder, _port(given.port), given.next_step)
    except SteadyError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None
    except ImportError:
        raise SystemExit("optuna-dashboard is not installed: pip install optuna-dashboard.") from None
    with server:
        say(f"{folder.name} at {address(server)} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say()


def serve(opened: BaseStorage, folder: Path, port: int, next_step: str = "") -> "Server":
    """Make the server of the study that is named as its folder; port 0 takes any that is free.

    Raises:
        ImportError: optuna-dashboard is not installed.
        StudyError: the storage has no such study, or the port is taken.
    """
    from optuna_dashboard import wsgi

    study = storage.find_study(opened, folder.name)
    if study is None:
        names = [one.study_name for one in opened.get_all_studies() if not one.study_name.endswith(LEASES)]
        if len(names) != 1:  # the only one may have another name than its folder
            raise StudyError(f"No study {folder.name} in that storage. There are: {', '.join(names) or 'none'}.")
        study = storage.find_study(opened, names[0])
    application = wsgi(presented(opened, folder, next_step), artifact_store=Store(folder / FOLDER))
    guarded = with_headers(application, POLICY, ARTIFACTS)
    try:
        server = make_server(HOST, port, guarded, server_class=Server, handler_class=LocalRequestHandler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise StudyError(f"Port {port} cannot be used ({error.strerror}). {OTHER.format(key='PORT')}") from None
    server.page = f"/dashboard/studies/{study}"
    return server


def address(server: "Server") -> str:
    """Get the URL of the study's page."""
    return f"http://{HOST}:{server.server_port}{server.page}"


def presented(opened: BaseStorage, folder: Path, next_step: str = "") -> BaseStorage:
    """Patch, in place, how a storage lists its studies: without our bookkeeping, and each with a note.

    >>> presented(optuna.storages.InMemoryStorage(), Path("sweeps/cats")).get_all_studies()
    []
    """
    every: Any = opened.get_all_studies

    def listed() -> list[Any]:
        studies = [one for one in every() if not one.study_name.endswith(LEASES)]
        for one in studies:
            if not any(key.startswith(NOTE) for key in one.system_attrs):
                # Version 0: the first that a person writes is 1.
                own = {f"{NOTE}ver": 0, f"{NOTE}str:0": note(opened, one.study_name, folder, next_step)}
                one.system_attrs = {**one.system_attrs, **own}
        return studies

    opened.get_all_studies = listed  # type: ignore[method-assign]  # of this one storage, as the docstring says
    return opened


def note(opened: BaseStorage, name: str, folder: Path, next_step: str = "") -> str:
    """Describe a study in Markdown: what it is, how it stands and what to do with it.

    `next_step`, with `{study}` for the name, is said only if the study says just that: another may be a stranger's.

    >>> opened = optuna.storages.InMemoryStorage()
    >>> study = optuna.create_study(study_name="cats", storage=opened)
    >>> note(opened, "cats", Path("sweeps/cats")).splitlines()[0]
    'A sweep: minimize **value**.'
    """
    study = optuna.load_study(study_name=name, storage=opened)
    if name.endswith(CONFIRMATION):
        return f"The best trials of **{plain(name.removesuffix(CONFIRMATION))}**, trained again under other seeds."
    goals = [direction.name.lower() for direction in study.directions]
    names = study.metric_names or (["value"] if len(goals) == 1 else [f"value {k}" for k in range(len(goals))])
    space = (meta.get(study, meta.CONTRACT) or {}).get("space") or {}
    lines = [
        f"A sweep: {' and '.join(f'{goal} **{plain(name)}**' for name, goal in zip(names, goals, strict=True))}"
        + (f", over {', '.join(map(code, space))}." if space else "."),
        f"- {plain(results.summary(study, names))}.",
    ]
    try:
        if confirmed := confirmation.read(folder):
            lines.append(f"- {plain(confirmed.sentence())}")
    except ValueError:  # of another version
        pass
    if command := plain_line(meta.get(study, meta.COMMAND)):
        lines.append(f"- This goes on with it, and in another folder does it again: {code(command)}")
    advice = next_step.replace("{study}", name)
    if advice and select.best_trials(study) and meta.get(study, meta.NEXT_STEP) == advice:
        lines.append(f"- {plain(advice)}")
    lines.append("- The page of a trial shows its newest pictures, also while it runs.")
    return "\n".join([lines[0], "", *lines[1:]])


class Server(ThreadingMixIn, WSGIServer):
    """An HTTP server that answers several requests at once: a plot of many trials takes seconds."""

    daemon_threads = True
    page = ""


def _port(given: str) -> int:
    if not re.fullmatch(r"\d{1,5}", given, re.ASCII) or int(given) > 65535:
        raise ConfigError(f"--port must be {PORT}; got {given!r}.")
    return int(given)


if __name__ == "__main__":
    main()
