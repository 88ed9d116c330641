"""Tasks of tests, as their processes get them."""

from collections.abc import Iterator

import cloudpickle
import pytest


@pytest.fixture
def by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tasks of the test's module travel whole, as those of `__main__` do."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)
