"""Configurations as plain values: nothing secret, nothing of one start or one machine."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from steady.study.contract import plain, resolved

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_comes_out_is_as_json_gives_it_back(value: Any) -> None:
    once = plain(value)
    assert json.loads(json.dumps(once)) == once
    assert plain(once) == once


def test_secrets_and_places_stay_out() -> None:
    assert plain(
        {
            "api_key": "s",
            "db_password": "s",
            "storage": "s",
            "url": "https://me:s@host/x",
            "db": "postgresql://me:s@h/d",
        }
    ) == {"url": "https://***@host/x", "db": None}


def test_interpolations_are_resolved_unless_they_pass() -> None:
    config = OmegaConf.create(
        {"a": 1, "b": "${a}", "dir": "out/${now:%H}", "home": "${oc.env:HOME}", "job": "${hydra:job.num}",
         "gone": "${searched.x}", "searched": {"x": 2}}
    )  # fmt: skip
    assert plain(resolved(config, ["searched"])) == {
        "a": 1, "b": 1, "dir": "out/${now:%H}", "home": "${oc.env:HOME}", "job": "${hydra:job.num}",
        "gone": "${searched.x}",
    }  # fmt: skip
    assert config.searched.x == 2
