"""Messages survive the wire, and hostile ones are refused without a crash or data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId
from strategies import layout
from strategies.receipts import Receipt
from strategies.records import CHUNK_BYTES


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Message takes its sender from the process's identity."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def _reply(content: RecordDict) -> Message:
    return Message(content, reply_to=Message(RecordDict(), 7, "train"))


BLOCKS = (b"a" * 10, b"", b"bc" * 9)
RECEIPTS = (Receipt(1, (0, 2), np.array([-5, 2**40]), b"a" * 32),
            Receipt(2, (0, 1, 2), np.array([7, -(2**31)]), b"b" * 32))
REPLY = layout.TrainReply(RoundId("ab", 3), "north", "ff", BLOCKS, 0.5, 0.25)


def test_train_reply_round_trip() -> None:
    assert layout.parse_train_reply(_reply(layout.train_reply(REPLY))) == REPLY


def test_large_replies_travel_in_chunks() -> None:
    blocks = tuple(bytes([i]) * 4_000_000 for i in range(4))
    content = layout.train_reply(layout.TrainReply(RoundId("ab", 1), "n", "f", blocks, 0.0, 0.0))
    sizes = [len(array.data) for array in content["body"].values()]
    assert max(sizes) <= CHUNK_BYTES and len(sizes) == 4
    assert layout.parse_train_reply(_reply(content)).blocks == blocks


def test_train_request_round_trip() -> None:
    request = layout.TrainRequest(RoundId("ab", 3), "train", "ff", b"m" * 32, receipts=RECEIPTS)
    parsed = layout.parse_train_request(layout.train_request(request))
    assert replace(parsed, receipts=()) == replace(request, receipts=())
    _same(parsed.receipts, RECEIPTS)


def _same(found: tuple[Receipt, ...], expected: tuple[Receipt, ...]) -> None:
    assert [(r.round, r.members, r.mac) for r in found] == [
        (r.round, r.members, r.mac) for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.integers.dtype == np.int64
        np.testing.assert_array_equal(one.integers, other.integers)


def test_receipts_out_of_order_are_refused() -> None:
    one, two = RECEIPTS
    for receipts in ((two, one), (one, one), (one, replace(two, round=3))):
        request = layout.TrainRequest(RoundId("ab", 3), "train", "ff", b"m" * 32, b"", receipts)
        with pytest.raises(Refused, match="one round after the other"):
            layout.parse_train_request(layout.train_request(request))


def test_open_round_trip() -> None:
    claim = OpeningClaim(RoundId("ab", 2), (0, 2), b"d" * 32)
    request = layout.OpenRequest(claim, "train", "ff", BLOCKS, b"m" * 32, b"state")
    assert layout.parse_open_request(layout.open_request(request)) == request
    sent = layout.open_request(replace(request, receipts=RECEIPTS))
    _same(layout.parse_open_request(sent).receipts, RECEIPTS)
    opened = OpenedSum(np.array([-5, 2**40]), (0, 2))
    reply = layout.OpenReply(opened, b"model", b"state", b"w" * 32)
    parsed = layout.parse_open_reply(_reply(layout.open_reply(reply)), 2)
    np.testing.assert_array_equal(parsed.opened.values, opened.values)
    assert (parsed.opened.partners, parsed.model, parsed.state, parsed.mac) == (
        (0, 2), b"model", b"state", b"w" * 32)
    with pytest.raises(Refused, match="another length"):
        layout.parse_open_reply(_reply(layout.open_reply(reply)), 3)


@pytest.mark.parametrize("model", [b"", b"x" * 7, b"x" * (CHUNK_BYTES + 1)])
def test_a_sealed_model_travels_as_it_is(model: bytes) -> None:
    request = layout.TrainRequest(RoundId("ab", 2), "train", "ff", b"m" * 32, model)
    content = layout.train_request(request)
    assert layout.parse_train_request(content) == request
    assert all(len(array.data) <= CHUNK_BYTES for array in content["sealed"].values())


def test_a_refusal_carries_one_word() -> None:
    with pytest.raises(layout.PartnerRefused) as caught:
        layout.parse_train_reply(_reply(layout.refusal("BudgetExceeded")))
    assert caught.value.reason == "BudgetExceeded"
    with pytest.raises(layout.PartnerRefused) as caught:
        layout.parse_train_reply(_reply(layout.refusal("customer 17 bought\x1b[31m")))
    assert caught.value.reason == "Unknown"


def test_an_error_reply_is_refused_without_its_text() -> None:
    error = Message(Error(2, "secret text"), reply_to=Message(RecordDict(), 7, "train"))
    with pytest.raises(Refused) as caught:
        layout.parse_train_reply(error)
    assert "secret" not in str(caught.value)


VALUES = st.one_of(
    st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=300), st.binary(max_size=40),
    st.booleans(), st.lists(st.integers(-5, 2**40), max_size=5),
    st.lists(st.floats(), max_size=3), st.lists(st.text(max_size=5), max_size=3))


@settings(max_examples=500, deadline=None, 
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["protocol", "run", "round", "partner", "fingerprint", "body_lengths",
                            "sealed_lengths", "receipts_lengths", "model_digest", "train_s",
                            "refused", "kind", "partners", "digest"]), value=VALUES,
       drop=st.booleans())
def test_mutated_heads_raise_only_refused(key: str, value: Any, drop: bool) -> None:
    claim = OpeningClaim(RoundId("ab", 2), (0, 2), b"d" * 32)
    contents = {
        "train": layout.train_reply(REPLY),
        "open": layout.open_request(layout.OpenRequest(
            claim, "train", "ff", BLOCKS, b"m" * 32, b"state", RECEIPTS)),
    }
    for name, content in contents.items():
        head = content["head"]
        if drop:
            head.pop(key, None)
        else:
            head[key] = value
        try:
            if name == "train":
                layout.parse_train_reply(_reply(content))
            else:
                layout.parse_open_request(content)
        except Refused:
            continue


@pytest.mark.parametrize("body", [
    {"000000": Array("uint8", (10**9,), "veilsum.blocks", b"x" * 28)},
    {"000000": Array("uint8", (28,), "numpy.ndarray", b"x" * 28)},
    {},
])
def test_mutated_bodies_raise_only_refused(body: dict[str, Array]) -> None:
    content = layout.train_reply(REPLY)
    content["body"] = ArrayRecord(body)
    try:
        parsed = layout.parse_train_reply(_reply(content))
    except Refused:
        return
    assert sum(map(len, parsed.blocks)) == 28


def test_a_message_without_head_or_body_is_refused() -> None:
    for content in (RecordDict(), RecordDict({"head": ConfigRecord({"protocol": 99})}),
                    RecordDict({"head": ArrayRecord()})):
        with pytest.raises(Refused):
            layout.parse_train_reply(_reply(content))
