"""`make dashboard`: Optuna's dashboard on a study, also while it runs. Writes nothing of its own."""

import argparse
from pathlib import Path

from catsweep.errors import CatsweepError
from catsweep.export.trials import find_study
from catsweep.search.settings import SWEEPS
from catsweep.search.storage import open_storage


def main(words: list[str] | None = None) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        words: of the command line.

    Raises:
        SystemExit: there is no such study, or the dashboard is not installed; with a message.
    """
    parser = argparse.ArgumentParser(description="Look at a study in the browser.")
    parser.add_argument("study", nargs="?", help="its name; the one written last if it is not given")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args(words)
    try:
        folder = find_study(SWEEPS, given.study)
        storage = open_storage(f"sqlite:///{folder / 'study.db'}")
        from optuna_dashboard import run_server
    except CatsweepError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    except ImportError:
        raise SystemExit("optuna-dashboard is not installed: pip install 'catsweep[dashboard]'.") from None
    print(f"{Path(folder).name} at http://127.0.0.1:{given.port} (Ctrl-C ends it)", flush=True)
    run_server(storage, host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
