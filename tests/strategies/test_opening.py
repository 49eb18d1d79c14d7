"""A run whose opener is not there ends before anybody is asked for anything."""

from __future__ import annotations

import pytest

from strategies.cohort import Cohort
from strategies.opening import OpeningFailed, check_opener


def test_an_opener_that_did_not_join_is_known_before_the_first_round() -> None:
    cohort = Cohort(("north", "south"), "ab", "f", nodes={"north": 1})
    check_opener(cohort, "north")
    with pytest.raises(OpeningFailed, match=r"south did not join: nothing was asked.*opener"):
        check_opener(cohort, "south")
