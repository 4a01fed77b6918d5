"""Fixtures of the tests of sources."""

import pytest

from preprocess import sources
from tests.preprocess.sources.finding import Find


@pytest.fixture
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """A function that finds what is in a folder or zip, always with the same scratch folder."""
    scratch = tmp_path_factory.mktemp("scratch")
    return lambda path: sources.find_source(path, scratch)
