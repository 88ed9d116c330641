"""Storages of servers: what is asked of a database when it is opened. `tests/engines` has real ones."""

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy

from steady.exceptions import StorageError
from steady.storage import servers
from steady.storage.servers import open_proxy


def test_a_proxy_needs_a_host() -> None:
    with pytest.raises(ValueError, match="no host"):
        open_proxy("grpc://:13000")


class Database:
    """A connection that answers each question with the next of the answers, and notes the questions."""

    def __init__(self, dialect: str, *answers: Any) -> None:
        self.dialect, self.answers, self.asked = SimpleNamespace(name=dialect), list(answers), list[str]()
        self.engine = sqlalchemy.create_engine("sqlite://")
        self.engine.url = sqlalchemy.make_url(f"{dialect}://me:secret@host/studies")

    def execute(self, question: object) -> Any:
        self.asked.append(str(question))
        return SimpleNamespace(scalar=lambda: self.answers.pop(0))


@pytest.mark.parametrize("answer", [0, None])
def test_a_lock_that_mysql_does_not_give_is_an_error(answer: int | None) -> None:
    with pytest.raises(StorageError, match=r"making Optuna's tables in mysql://me:\*\*\*@host/studies for a minute"):
        servers.lock_tables(Database("mysql", answer))  # type: ignore[arg-type]
    servers.lock_tables(Database("mysql", 1))  # type: ignore[arg-type]


def test_a_standby_is_refused_at_once() -> None:
    with pytest.raises(StorageError, match=r"postgresql://me:\*\*\*@host/studies can only be read.*primary server"):
        servers.require_writable(Database("postgresql", "on"))  # type: ignore[arg-type]
    servers.require_writable(Database("postgresql", "off"))  # type: ignore[arg-type]
    servers.require_writable(Database("mysql"))  # type: ignore[arg-type]
