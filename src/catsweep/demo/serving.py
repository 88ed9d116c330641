"""The demo's page on 127.0.0.1, for the browser of this machine alone, with no way out of it.

Gradio would serve itself, but then it looks for its own address over HTTP and can be told by the environment to open
tunnels. Here uvicorn serves what Gradio made, and the browser is told to fetch nothing from anywhere else.
"""

import socket
from importlib.resources import files

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from catsweep.demo.page import theme

LARGEST_PHOTO = "64mb"
# Whatever a component would like to fetch: only this server is asked. Gradio's own script needs the two "unsafe".
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]
# Addresses of Gradio by which the server would fetch something from elsewhere.
FETCHING = ("/gradio_api/proxy=", "/gradio_api/file=http", "/llms.txt", "/gradio_api/llms.txt")


class NoFetching:
    """Answers 404 where Gradio would fetch something from another machine.

    Args:
        app: the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and scope["path"].lower().startswith(FETCHING):
            await Response(status_code=404)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def application(page: gr.Blocks, host: str) -> FastAPI:
    """The page as an application.

    Args:
        page: of Gradio.
        host: by whose name, or as localhost, it may be asked for; a foreign name pointed at this machine is refused.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(NoFetching)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"], www_redirect=False)
    css = files("catsweep.demo").joinpath("page.css").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        app, page, "/", theme=theme(), css=css, footer_links=[], run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, max_file_size=LARGEST_PHOTO,
    )  # fmt: skip
    return app


def serve(page: gr.Blocks, listening: socket.socket) -> None:
    """Serve until a signal.

    Args:
        page: of Gradio.
        listening: on this machine alone.

    Raises:
        KeyboardInterrupt: at the end; uvicorn raises the signal again when it has stopped.
    """
    app = application(page, listening.getsockname()[0])
    config = uvicorn.Config(
        app, headers=HEADERS, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])
