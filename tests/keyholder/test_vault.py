"""Sealed pieces open only whole, at their place, and with their key."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encryption.parameters import choose_parameters
from encryption.types import Refused
from keyholder.keys import SharedKey
from keyholder.refusals import SealBroken
from keyholder.vault import OVERHEAD_BYTES, Kind, Vault, read_header, run_hash

KEY = SharedKey.generate(choose_parameters("plaintext", 3, 16))
RUN, LINK = run_hash("run"), bytes(range(32))
VAULT = Vault(KEY, RUN)
CONTENT = os.urandom(1000)
SEALED = VAULT.seal(Kind.MODEL, 7, LINK, CONTENT)


def test_what_was_sealed_opens() -> None:
    header, content = VAULT.open(Kind.MODEL, 7, SEALED)
    assert content == CONTENT and header.link == LINK and header == read_header(SEALED)
    assert len(SEALED) == len(CONTENT) + OVERHEAD_BYTES
    assert CONTENT[:16] not in SEALED


def test_the_same_content_gives_the_same_bytes_and_another_round_others() -> None:
    assert VAULT.seal(Kind.MODEL, 7, LINK, CONTENT) == SEALED
    for other in (VAULT.seal(Kind.MODEL, 8, LINK, CONTENT),
                  VAULT.seal(Kind.STATE, 7, LINK, CONTENT),
                  Vault(KEY, run_hash("other")).seal(Kind.MODEL, 7, LINK, CONTENT)):
        same = sum(a == b for a, b in zip(other[-900:], SEALED[-900:], strict=True))
        assert same < 50  # of 900: independent bytes agree about 3.5 times


@pytest.mark.parametrize(("vault", "kind", "number", "reason"), [
    (VAULT, Kind.MODEL, 8, "another round"), (VAULT, Kind.STATE, 7, "another round or kind"),
    (Vault(KEY, run_hash("other")), Kind.MODEL, 7, "another run"),
    (Vault(SharedKey.generate(choose_parameters("plaintext", 3, 16)), RUN), Kind.MODEL, 7,
     "another key"),
])
def test_a_piece_of_another_place_is_refused_by_name(vault, kind, number, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SealBroken, match=reason):
        vault.open(kind, number, SEALED)


@pytest.mark.parametrize("field", [slice(12, 16), slice(16, 48)])
def test_a_header_rewritten_to_fit_does_not_help(field: slice) -> None:
    """The server knows every byte of the header, and lacks the key."""
    other = Vault(KEY, run_hash("other"))
    wanted = other.seal(Kind.MODEL, 9, LINK, b"x")
    forged = bytearray(SEALED)
    forged[field] = wanted[field]
    header = read_header(bytes(forged))
    vault = VAULT if header.run == RUN else other
    with pytest.raises(SealBroken, match="changed"):
        vault.open(Kind.MODEL, header.round, bytes(forged))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(SEALED) - 1), flip=st.integers(1, 255), cut=st.integers(0, 1200))
def test_changed_or_cut_bytes_never_open(place: int, flip: int, cut: int) -> None:
    changed = bytearray(SEALED)
    changed[place] ^= flip
    for hostile in (bytes(changed), SEALED[:cut] if cut < len(SEALED) else SEALED + b"x",
                    os.urandom(cut), SEALED[:16] + os.urandom(cut)):
        with pytest.raises(Refused):
            VAULT.open(Kind.MODEL, 7, hostile)
