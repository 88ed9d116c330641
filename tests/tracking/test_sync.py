"""What was recorded offline goes up once, in order, and only when it has ended; by wandb's client, to our server."""

import gzip
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

from catsweep.errors import ConfigError
from catsweep.tracking import sync

Record = Callable[..., Path]


class Server(ThreadingHTTPServer):
    """Answers on 127.0.0.1 what `wandb sync` asks of W&B, and keeps the values that were uploaded.

    Attributes:
        uploaded: values of each row of a run's history, in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.uploaded: list[tuple[str, int]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that ends breaks off its connections."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: Any = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.answer(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.uploaded += [(self.path.split("/")[-2], json.loads(row)["value"]) for row in history]
        told = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_PUT = do_POST

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            project = {"id": "1", "name": given["project"], "entity": {"id": "1", "name": "me"}}
            name = given["name"]
            run = {"id": name, "name": name, "displayName": name, "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": {**run, "historyLineCount": 0}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as made:
        monkeypatch.setenv("WANDB_BASE_URL", made.url)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def begin(place: Path, run: str, value: int) -> wandb.Run:
    place.mkdir(exist_ok=True)
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    running = wandb.init(project="cats", id=run, mode="offline", dir=str(place), settings=settings)
    running.log({"value": value}, step=value)
    return running


def is_open(log: Path) -> bool:
    return log in sync._written_here()


def start_of_last(log: bytes) -> int:
    """Where the last entry of a log begins: after a header, each has a checksum, its length and its kind."""
    start = following = 7
    while following < len(log):
        start, following = following, following + 7 + int.from_bytes(log[following + 4 : following + 6], "little")
    return start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "wandb"


@pytest.fixture
def record(tmp_path: Path, folder: Path) -> Record:
    """Make an offline record with one value, last written `ago` seconds ago; without its end, unless it has `ended`."""

    def made(run: str, begun: str = "20260101_000000", value: int = 0, ago: float = 3600.0, ended: bool = True) -> Path:
        running = begin(tmp_path / begun, run, value)
        [log] = Path(running.dir).parent.glob("*.wandb")
        running.finish()
        while is_open(log):  # until wandb's process has written it
            time.sleep(0.02)
        place = folder / f"offline-run-{begun}-{run}"
        shutil.copytree(log.parent, place)
        if not ended:
            os.truncate(place / log.name, start_of_last(log.read_bytes()))
        os.utime(place / log.name, (time.time() - ago, time.time() - ago))
        return place

    return made


@pytest.mark.usefixtures("signed_in")
def test_the_parts_of_all_runs_go_up_in_order_and_never_again(record: Record, server: Server, folder: Path) -> None:
    record("cats-3", "20260101_000001", value=1)
    record("cats-3", "20260101_000002", value=2)
    other = record("cats-4", "20260101_000003", value=3, ago=5)
    (folder / "latest-run").symlink_to(other)
    (folder / "run-20260101_000000-online").mkdir()
    assert sync.sync(folder) == "Uploaded 2 runs, in 3 parts."
    assert [row for row in server.uploaded if row[0] == "cats-3"] == [("cats-3", 1), ("cats-3", 2)]
    assert [row for row in server.uploaded if row[0] != "cats-3"] == [("cats-4", 3)]
    assert sync.sync(folder).startswith("Nothing to upload: no offline run")
    record("cats-4", "20260101_000004", value=4)
    assert sync.sync(folder) == "Uploaded 1 run, in 1 part."
    assert server.uploaded[3:] == [("cats-4", 4)]


@pytest.mark.usefixtures("signed_out")
def test_without_a_key_it_says_what_is_missing(record: Record, server: Server, folder: Path) -> None:
    record("cats-3")
    with pytest.raises(ConfigError, match=r"1 run is waiting .* no key here.*wandb login.*WANDB_API_KEY"):
        sync.sync(folder)
    assert server.uploaded == []


@pytest.mark.usefixtures("signed_out")
def test_with_nothing_to_upload_no_key_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sync.main([])
    assert capsys.readouterr().out.startswith("Nothing to upload")
    (tmp_path / "outputs/wandb/offline-run-20260101_000000-empty").mkdir(parents=True)
    sync.main([])


@pytest.mark.usefixtures("signed_in")
def test_a_run_that_goes_on_is_left_for_later_with_its_earlier_parts(
    record: Record, server: Server, folder: Path
) -> None:
    record("cats-3", "20260101_000001")
    record("cats-3", "20260101_000002", ago=5, ended=False)
    assert sync.sync(folder) == "Nothing to upload yet: 1 run is still going on, and left for later."
    record("cats-4", value=4)
    record("cats-5", value=5, ago=7200, ended=False)  # killed two hours ago
    assert "Uploaded 2 runs, in 2 parts. 1 run is still going on" in sync.sync(folder)
    assert ("cats-4", 4) in server.uploaded
    assert "cats-3" not in dict(server.uploaded)


@pytest.mark.usefixtures("signed_in")
def test_a_record_that_wandb_has_open_goes_on(tmp_path: Path, server: Server) -> None:
    running = begin(tmp_path, "cats-3", 1)
    [log] = Path(running.dir).parent.glob("*.wandb")
    os.utime(log, (0, 0))
    assert "1 run is still going on" in sync.sync(tmp_path / "wandb")
    running.finish()
    while is_open(log):
        time.sleep(0.02)
    assert sync.sync(tmp_path / "wandb") == "Uploaded 1 run, in 1 part."
    assert server.uploaded == [("cats-3", 1)]


@pytest.mark.usefixtures("signed_in")
def test_a_damaged_record_keeps_no_other_run_back(record: Record, server: Server, folder: Path) -> None:
    record("cats-3", value=3)
    bad = record("cats-4")
    [log] = bad.glob("*.wandb")
    log.write_bytes(b"no record")
    with pytest.raises(SystemExit, match=f"did not upload {bad.name}; above it says why"):
        sync.main([str(folder)])
    assert server.uploaded == [("cats-3", 3)]


@pytest.mark.usefixtures("signed_in")
def test_of_a_record_that_is_cut_within_an_entry_the_rest_goes_up(record: Record, server: Server, folder: Path) -> None:
    """As a run that was killed leaves it; a later part of the run goes up behind it."""
    cut = record("cats-3", "20260101_000001", value=1)
    [log] = cut.glob("*.wandb")
    os.truncate(log, log.stat().st_size - 3)
    os.utime(log, (0, 0))
    before = log.read_bytes()
    record("cats-3", "20260101_000002", value=2)
    said = sync.sync(folder)
    assert said == (
        f"Uploaded 1 run, in 2 parts. The last entry of {cut.name} is cut, as of a run that was killed: all before it "
        "is online."
    )
    assert server.uploaded == [("cats-3", 1), ("cats-3", 2)]
    assert log.read_bytes() == before
    assert sync.sync(folder).startswith("Nothing to upload: no offline run")
