"""How many processes add is a fact of the server's machine, so its environment says it."""

import pytest

from conf.schema import InvalidConfig
from server.app import _asked


def test_the_environment_names_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VEILSUM_PROCESSES", raising=False)
    assert _asked() is None
    monkeypatch.setenv("VEILSUM_PROCESSES", "3")
    assert _asked() == 3
    for text in ("0", "65", "two", "", "-1", "1.5"):
        monkeypatch.setenv("VEILSUM_PROCESSES", text)
        with pytest.raises(InvalidConfig, match="VEILSUM_PROCESSES: must be a whole number"):
            _asked()
