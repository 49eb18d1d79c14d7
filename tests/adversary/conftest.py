"""The small federations of the key holder's tests, and of the real apps'; sites for an operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adversary.operator import Sites
from tests.federation.conftest import clients, configure, table
from tests.keyholder.conftest import federate

__all__ = ["clients", "configure", "federate", "table"]


@pytest.fixture
def sites(configure, tmp_path: Path) -> Callable[..., Sites]:  # type: ignore[no-untyped-def]
    def make(**groups: dict[str, object]) -> Sites:
        return Sites.make(configure(**groups), tmp_path)

    return make
