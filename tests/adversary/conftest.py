"""The small federations of the key holder's tests, and of the real apps'."""

from tests.federation.conftest import clients, configure, table
from tests.keyholder.conftest import federate

__all__ = ["clients", "configure", "federate", "table"]
