"""A page of a stranger in the same browser: what it can send to a server of ours, and what it learns."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import Browser

# Each way by which a page can send a request to another site; resolves to what the page has learned.
WAYS = """async ({target, method, body}) => {
  const told = {};
  const tried = async (name, way) => { try { told[name] = await way(); } catch { told[name] = "refused"; } };
  const loaded = (element, source) => new Promise((end) => {
    element.onload = () => end("loaded"); element.onerror = () => end("refused");
    element[element instanceof HTMLLinkElement ? "href" : "src"] = source; document.body.append(element);
  });
  const text = async (answer) => `${answer.status} ${await answer.text()}`;
  await tried("fetch", async () => text(await fetch(target, {method, body})));
  const post = (type) => ({method, body, headers: {"Content-Type": type}});
  await tried("json", async () => text(await fetch(target, post("application/json"))));
  await tried("simple", async () => text(await fetch(target, {...post("text/plain"), method: "POST"})));
  await tried("blind", async () => (await fetch(target, {method: "POST", mode: "no-cors", body})).type);
  await tried("get", async () => (await fetch(target, {mode: "no-cors"})).type);
  await tried("beacon", async () => String(navigator.sendBeacon(target, body)));
  await tried("image", () => loaded(new Image(), target));
  await tried("script", () => loaded(document.createElement("script"), target));
  await tried("form", () => new Promise((end) => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    frame.name = "sink"; document.body.append(frame); frame.onload = () => end("sent");
    Object.assign(form, {action: target, method: "POST", target: "sink", enctype: "text/plain"});
    const field = document.createElement("input"); field.name = body; form.append(field);
    document.body.append(form); form.submit();
  }));
  await tried("opaque", () => new Promise((end) => {
    const frame = document.createElement("iframe"); frame.sandbox = "allow-scripts allow-forms";
    addEventListener("message", (event) => end(event.data), {once: true});
    const how = JSON.stringify({method: "POST", mode: "no-cors", body});
    frame.srcdoc = `<script>fetch(${JSON.stringify(target)}, ${how})
      .then((a) => parent.postMessage(a.type, "*"), () => parent.postMessage("refused", "*"))<\\/script>`;
    document.body.append(frame);
  }));
  await tried("socket", () => new Promise((end) => {
    const socket = new WebSocket(target.replace("http", "ws"));
    socket.onopen = () => end("open"); socket.onerror = () => end("refused");
  }));
  return told;
}"""


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = b"<!doctype html><title>strange</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stranger() -> Iterator[int]:
    """A server with a blank page; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        (thread := threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})).start()
        yield server.server_port
        server.shutdown()
        thread.join()


def attack(browser: Browser, host: str, target: str, method: str, body: str) -> dict[str, str]:
    """Open a stranger's page under a name, and let it try all ways.

    Args:
        browser: in which our own page may be open, too.
        host: `evil.test`, or a name of this machine: another program's page.
        target: address of ours.
        method: of the request that it would like to make.
        body: of that request.

    Returns:
        By way, what the page has learned.
    """
    with stranger() as port:
        page = browser.new_page()
        try:
            page.goto(f"http://{host}:{port}/")
            return page.evaluate(WAYS, {"target": target, "method": method, "body": body})
        finally:
            page.close()
