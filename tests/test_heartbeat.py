"""A line a minute."""

import logging

import pytest

from catsweep.heartbeat import every_minute


def test_all_items_come_and_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    seen = []
    with caplog.at_level(logging.INFO):
        for item in every_minute(range(5000), logging.getLogger("here"), "%s photos read so far", lambda: now[0]):
            seen.append(item)
            now[0] += 0.03
    assert seen == list(range(5000))
    assert caplog.messages == ["2,000 photos read so far", "4,000 photos read so far"]
