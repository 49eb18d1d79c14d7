"""Deterministic changes to real bytes, messages and configurations."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

HUGE = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 2**64, 10**30)


def changed(source: Random, content: bytes) -> bytes:
    """One to three small changes: flips, cuts, insertions, runs of one byte, stretches moved."""
    made = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        near = source.random() < 0.5  # headers and lengths lie in front
        place = source.randrange(min(len(made), 80) if near else len(made)) if made else 0
        width = source.choice((1, 2, 4, 8, 16, 64))
        kind = source.randrange(7)
        if kind == 0 and made:
            made[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            del made[place:]
        elif kind == 2:
            made[place:place] = source.randbytes(width)
        elif kind == 3:
            made[place : place + width] = source.choice((b"\xff", b"\0", b"\x7f")) * width
        elif kind == 4:
            del made[place : place + width]
        elif kind == 5:
            made[place : place + 8] = source.choice(HUGE).to_bytes(16, "little", signed=True)[:8]
        else:
            made[place : place + width] = made[: width]
    return bytes(made)


def value(source: Random) -> Any:
    """A value that a Flower ConfigRecord takes, likely of the wrong type or size."""
    return source.choice((
        lambda: source.choice(HUGE), lambda: source.random(), lambda: float("nan"),
        lambda: float("-inf"), lambda: "", lambda: "x" * source.choice((1, 199, 201, 100_000)),
        lambda: "\ud800", lambda: "a\nb\x1b[31m", lambda: "\0", lambda: b"",
        lambda: source.randbytes(source.choice((1, 32, 33))), lambda: True, lambda: [],
        lambda: [source.choice(HUGE) for _ in range(source.choice((1, 3, 2000)))],
        lambda: [True, False], lambda: [0.5, float("inf")], lambda: ["a", "b"], lambda: [b"", b"x"],
        lambda: list(range(source.choice((2, 1000)))),
    ))()


def record(source: Random, content: RecordDict) -> RecordDict:
    """A message with one to three heads, bodies or parts of them replaced."""
    for _ in range(source.choice((1, 1, 2, 3))):
        head, body = content.get("head"), content.get("body")
        kind = source.randrange(8)
        if kind < 4 and isinstance(head, ConfigRecord):
            key = source.choice((*head, "refused", "protocol", "unknown"))
            if kind == 0:
                head.pop(key, None)
            else:
                head[key] = value(source)
        elif kind < 6 and isinstance(body, ArrayRecord):
            _change_body(source, body)
        elif kind == 6:
            content.pop(source.choice(("head", "body")), None)
        else:
            place = source.choice(("head", "body"))
            content.pop(place, None)
            content[place] = source.choice(
                (ArrayRecord(), ConfigRecord(), ConfigRecord({"protocol": 1})))
    return content


def _change_body(source: Random, body: ArrayRecord) -> None:
    name = source.choice((*body, "000000", "values", "model", "", "zz"))
    if source.random() < 0.2:
        body.pop(name, None)
        return
    old = body.get(name) or Array("uint8", (0,), "veilsum.blocks", b"")
    shape = source.choice((old.shape, (), (0,), (-1,), (10**18,), (2, 2), (len(old.data),)))
    data = changed(source, old.data) if source.random() < 0.5 else old.data
    body[name] = Array(
        source.choice((old.dtype, "O", "<f8", "", "int9000")), shape,
        source.choice((old.stype, "numpy.ndarray", "veilsum.f8", "veilsum.i8", "")), data)


def configuration(source: Random, text: str) -> str:
    """JSON with a value or a key replaced, or bytes of it changed."""
    if source.random() < 0.4:
        return changed(source, text.encode()).decode(errors="replace")
    tree = json.loads(text)
    group = source.choice(list(tree))
    parent, key = tree, group
    if isinstance(tree[group], dict) and source.random() < 0.9:
        parent, key = tree[group], source.choice(list(tree[group]))
    deep: Any = 1
    for _ in range(source.choice((2, 50))):
        deep = [deep]
    parent[key] = source.choice((
        source.choice(HUGE), source.random() * 10 ** source.randrange(-300, 300), None, True, "",
        "${oc.env:HOME}", "${" * 50, "???", "\ud800", "x" * 10_000, [], {}, [None], deep,
        ["a"] * source.choice((2, 500)), {"a": 1}, {"": {}}, {"a": [[1]]}, "1e400", "0x10", -0.0,
        "nan", [1, "a", None]))
    if source.random() < 0.1:
        parent[source.choice(("__class__", "_target_", "", "a.b", "0"))] = 1
    return json.dumps(tree)


def ledger_line(source: Random, line: bytes) -> bytes:
    """A line of JSON with one field replaced, added or gone, or another event; or no such line."""
    if source.random() < 0.15:
        return source.choice((b"", b"{}", b"[]", b"null", b"1", b'"a"', b"NaN", b"\xff\xfe", b"\0",
                              b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000, b"1e999", line * 2))
    fields = json.loads(line)
    key = source.choice((*fields, "failure", "extra"))
    if source.random() < 0.2:
        fields.pop(key, None)
    else:
        fields[key] = source.choice((
            source.choice(HUGE), True, None, "", "\ud800", [], {}, [[1]], -1, 0.5, -0.5,
            float("nan"), float("inf"), float("-inf"), 1e-300, 1e300, 10**400, "gaussian",
            "renyi", "a" * 9999))
    if source.random() < 0.5:
        fields["event"] = _event(source, 0)
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _event(source: Random, depth: int) -> str:
    """Text of an event, likely of none that can be accounted."""
    number = source.choice((0.0, 1.0, -1.0, 1e-9, 1e-3, 1e-2, 0.5, 30.0, 1e30, 1e300, 5e-324, 1,
                            True, "1", None, float("nan"), float("inf"), 10**400, 10**9, []))
    tree: Any = source.choice((
        {"kind": "gaussian", "noise_multiplier": number}, {"kind": "nothing"},
        {"kind": "not_private"},
        {"kind": "poisson_sampled", "rate": number,
         "of": {"kind": "gaussian", "noise_multiplier": source.choice((1.0, 1e-3, 1e30, 0.0))}},
        {"kind": "poisson_sampled", "rate": 0.5, "of": {"kind": "nothing"}},
        {"kind": "laplace"}, {}, [], 5, None, {"kind": []}))
    for _ in range(source.choice((0, 0, 1, 3, 9, 400))):
        tree = source.choice(({"kind": "repeated", "count": number, "of": tree},
                              {"kind": "repeated", "count": 1000, "of": tree},
                              {"kind": "all", "of": [tree] * source.choice((0, 1, 2))
                               if depth < 3 else [tree]}))
        depth += 1
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return text if source.random() < 0.9 else text[: source.randrange(1 + len(text))]
