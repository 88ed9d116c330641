"""Run the demo: `make demo`. Needs Gradio (`pip install 'catsweep[demo]'`), and no network."""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from catsweep.app.session import Session
from catsweep.errors import ConfigError
from catsweep.generate.model_source import choose
from steady.local_server import listen
from steady.printing import say

# Gradio reads these when it is imported. Whatever the person's own environment says, the demo talks to nobody.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


def run(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C, or SIGTERM, which `steady.signals` makes one.

    Raises:
        ConfigError: Gradio is not installed, or a key cannot mean anything.
        DataError: the run's folder holds no trained model.
        ExportError: there is no bundle, or a damaged one.
    """
    if find_spec("gradio") is None:
        raise ConfigError("The demo needs Gradio, which is not installed: pip install 'catsweep[demo]'")
    source = choose(cfg.bundle, cfg.run)
    os.environ.update(QUIET)
    with listen(cfg.port, "port") as listening, tempfile.TemporaryDirectory(prefix="catsweep-demo-") as folder:
        # Drawings that are under way then make it again. This comes after the threads of the server have ended.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        # Gradio serves what is in its own folder and nothing else, so the pictures go there.
        os.environ["GRADIO_TEMP_DIR"] = folder
        say(f"Loading {source.folder}", flush=True)
        session = Session(source, Path(folder))

        from catsweep.app.gradio_page import build  # imports Gradio, which reads the environment
        from catsweep.app.serving import serve

        page = build(session)
        host, port = listening.getsockname()
        with suppress(KeyboardInterrupt):
            say(f"Draw cats at http://{host}:{port} (Ctrl-C ends it)", flush=True)
            serve(page, session.folder, listening)
