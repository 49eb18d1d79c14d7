"""The small federation of the key holder's tests."""

from tests.keyholder.conftest import federate

__all__ = ["federate"]
