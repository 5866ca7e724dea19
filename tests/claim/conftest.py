"""Claims are tried on a narrow network."""

import pytest


@pytest.fixture(autouse=True)
def narrow_network(narrow: None) -> None:
    """One file may override `narrow`."""
