"""Every parser that takes bytes or records from another party, with real input to mutate.

A target's ``run`` does one case: it makes hostile input from the random source and hands it over.
It returns whether the input was accepted; every refusal has to be an exception of ours.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import dp_accounting as dp
import numpy as np
from flwr.app import RecordDict
from flwr.common.serde import ProtoRecordDict, recorddict_from_proto, recorddict_to_proto

from client.model_chain import ModelChain
from client.reply_store import ReplyStore
from client.run_notes import Note, parse_note
from conf.compose import from_json, to_json
from conf.schema import Config, FederationConfig, InvalidConfig, PrivacyConfig, TaskConfig
from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId
from encryption.wire import HEADER_BYTES
from keyholder.ciphers import make_cipher
from keyholder.guard import OpeningGuard
from keyholder.keys import KeyFileError, SharedKey
from keyholder.opening import SumOpener
from keyholder.receipts import vouch
from keyholder.sealer import Sealer
from keyholder.vault import Kind, Vault, run_hash
from learning.registry import shared_start
from privacy.ledger import Ledger
from privacy.ledger_file import LedgerBroken, Mark
from strategies import layout as messages
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.receipts import Receipt
from tests.fuzz import mutate
from tests.keyholder import forging

OURS = (Refused, InvalidConfig, KeyFileError, LedgerBroken)
SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
ROUND = RoundId("5eed", 3)
Run = Callable[[Random], bool]


@dataclass(frozen=True)
class Target:
    run: Run
    share: int
    """Cases of a hundred."""


def make(folder: Path) -> Mapping[str, Target]:
    """All targets. ``folder`` holds their files."""
    made: dict[str, Target] = {}
    for suite in SUITES:
        federation = _Federation(suite, folder)
        made[f"fold.{suite}"] = Target(federation.fold, 10)
        made[f"open.{suite}"] = Target(federation.open, 4)
        made[f"key.{suite}"] = Target(federation.key_file, 3)
    for name, content, parse in _messages():
        made[f"message.{name}"] = Target(partial(_message, content, parse), 7)
    made["receipt"] = Target(_receipts(folder), 3)
    made["sealed model"] = Target(partial(_sealed_model, *_vault()), 2)
    made["configuration"] = Target(_configuration, 2)
    made["stored reply"] = Target(partial(_stored_reply, folder), 4)
    made["note of a run"] = Target(_note, 3)
    made["ledger"] = Target(partial(_ledger, folder / "ledger.jsonl"), 8)
    return made


class _Federation:
    """One update and its sum, of two blocks."""

    def __init__(self, suite: str, folder: Path) -> None:
        self._parameters = choose_parameters(suite, 6, 16)
        self._layout = ControlLayout(
            self._parameters.values_per_block + 50, 6, self._parameters)
        self._key = SharedKey.generate(self._parameters)
        values = np.zeros(self._layout.values, np.int64)
        self._fresh = Sealer(self._key, self._layout, 0).seal(values, ROUND)
        accumulator = make_accumulator(self._layout)
        accumulator.fold(self._fresh)
        self._total = accumulator.finish()
        self._folder = folder
        self._key.save(folder / f"{suite}.key")
        self._file = (folder / f"{suite}.key").read_bytes()

    def fold(self, source: Random) -> bool:
        make_accumulator(self._layout).fold(self._changed(source, self._fresh))
        return True

    def open(self, source: Random) -> bool:
        blocks = self._changed(source, self._total)
        claimed = digest([block for block in blocks if isinstance(block, bytes)])
        with tempfile.TemporaryDirectory(dir=self._folder) as guard:
            opener = SumOpener(self._key, self._layout, OpeningGuard(guard), 1)
            opened = opener.open(OpeningClaim(ROUND, (0,), claimed), blocks)
        # What opens holds what the honest sum holds: zeros.
        assert not opened.values.any(), "a forged sum was opened"
        return True

    def key_file(self, source: Random) -> bool:
        content = mutate.changed(source, self._file)
        if source.random() < 0.7:  # with the right checksum, so that what lies inside is read
            content = content[:-32] + hashlib.sha256(content[:-32]).digest()
        path = self._folder / "changed.key"
        path.touch(0o600)
        path.write_bytes(content)
        make_cipher(SharedKey.load(path), self._parameters)
        return True

    def _changed(self, source: Random, blocks: tuple[bytes, ...]) -> tuple[object, ...]:
        made: list[object] = list(blocks)
        at = source.randrange(len(made))
        kind = source.random()
        if kind < 0.3:
            made[at] = mutate.changed(source, blocks[at])
        elif kind < 0.8:  # another body under a header and a digest that fit
            body = mutate.changed(source, blocks[at][HEADER_BYTES:])
            made[at] = forging.relabel(
                self._parameters, blocks[at][:HEADER_BYTES] + body)
        elif kind < 0.9:
            field = source.choice(("round", "client", "index", "count"))
            number = source.choice((0, 1, 2, 7, 2**31, 2**32 - 1))
            made[at] = forging.relabel(self._parameters, blocks[at], **{field: number})
        else:
            made[at:] = source.choice(
                ([], [None], [1], [""], [bytearray(blocks[at])], [blocks[at]] * 3, [b""] * 1000,
                 [blocks[at - 1]]))
        return tuple(made)


def _messages() -> list[tuple[str, Callable, Callable]]:
    """(name, how a real one is made, its parser)."""
    blocks = (b"a" * 200, b"", b"bc" * 90)
    claim = OpeningClaim(ROUND, (0, 2), b"d" * 32)
    receipts = tuple(Receipt(number, (0, 2), np.arange(50), bytes([number]) * 32)
                     for number in (1, 2))
    replies = {
        "join reply": (partial(messages.join_reply, messages.JoinReply("north", "ab" * 16, 2)),
                       messages.parse_join_reply),
        "train reply": (partial(messages.train_reply, messages.TrainReply(
            ROUND, "north", "ff", blocks, 0.5, 0.25)), messages.parse_train_reply),
        "open reply": (partial(messages.open_reply, messages.OpenReply(
            OpenedSum(np.arange(50), (0, 2)), b"model" * 9, b"state" * 20, b"w" * 32)),
                       lambda message: messages.parse_open_reply(message, 50)),
    }
    requests = {
        "join request": (partial(messages.join_request, "5eed", "ff"),
                         messages.parse_join_request),
        "train request": (partial(messages.train_request, messages.TrainRequest(
            ROUND, "train", "ff", b"m" * 32, receipts=receipts)), messages.parse_train_request),
        "sealed train request": (partial(messages.train_request, messages.TrainRequest(
            ROUND, "train", "ff", b"m" * 32, b"sealed" * 40)), messages.parse_train_request),
        "open request": (partial(messages.open_request, messages.OpenRequest(
            claim, "train", "ff", blocks, b"m" * 32, b"state" * 20, receipts)),
                         messages.parse_open_request),
    }
    def of_reply(parse: Callable) -> Callable:
        return lambda content: parse(SimpleNamespace(content=content, has_error=lambda: False))

    return ([(name, make, of_reply(parse)) for name, (make, parse) in replies.items()]
            + [(name, make, parse) for name, (make, parse) in requests.items()])


def _message(content: Callable, parse: Callable, source: Random) -> bool:
    parsed = parse(_received(source, content()))
    # Accepted texts go into logs and file names, accepted numbers into arrays.
    for text in _texts(parsed):
        assert text.isprintable() and len(text) <= 200
        text.encode()
    return True


def _received(source: Random, content: RecordDict) -> RecordDict:
    """What a server or a client gets: another record, or one from changed bytes of Flower's own
    encoding where Flower accepts those."""
    if source.random() < 0.7:
        return mutate.record(source, content)
    sent = mutate.changed(source, recorddict_to_proto(content).SerializeToString())
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(sent))
    except Exception:
        raise Refused("Flower did not accept the bytes") from None


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value if isinstance(value, tuple) else getattr(value, "__dict__", {}).values()
    return [text for part in parts for text in _texts(part)]


def _vault() -> tuple[Vault, bytes]:
    """A run's vault, and a model of its round 3."""
    key = SharedKey.generate(choose_parameters("plaintext", 6, 16))
    vault = Vault(key, run_hash(ROUND.run))
    return vault, vault.seal(Kind.MODEL, ROUND.round, b"d" * 32, bytes(range(200)))


def _sealed_model(vault: Vault, sealed: bytes, source: Random) -> bool:
    content = vault.open(Kind.MODEL, ROUND.round, mutate.changed(source, sealed))[1]
    assert content == bytes(range(200)), "a forged model was opened"
    return True


def _receipts(folder: Path) -> Run:
    """A site that steps its model along a receipt: only the true one moves it."""
    partners = ["a", "b", "c"]
    config = Config(
        task=TaskConfig(categories=["MILK"]), privacy=PrivacyConfig(name="none"),
        federation=FederationConfig(partners=partners, customers=dict.fromkeys(partners, 10)))
    agreement = Agreement.of(config)
    key = SharedKey.generate(agreement.parameters)
    start = model_digest(shared_start(config))
    true = np.arange(agreement.training.total_size)
    packed = Receipt(1, (0, 1, 2), true, vouch(
        key, RoundId(ROUND.run, 1), "train", (0, 1, 2), start, true)).packed()

    def run(source: Random) -> bool:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            chain = ModelChain(config, agreement, key, ROUND.run, Path(place))
            receipt = Receipt.unpacked(mutate.changed(source, packed))
            assert Receipt.unpacked(receipt.packed()).mac == receipt.mac
            chain.before(2, (receipt,))
        assert np.array_equal(receipt.integers, true), "a forged receipt moved the model"
        return True

    return run


def _configuration(source: Random) -> bool:
    partners = ["a", "b", "c"]
    real = to_json(Config(federation=FederationConfig(
        partners=partners, customers=dict.fromkeys(partners, 10))))
    text = to_json(from_json(mutate.configuration(source, real)))
    assert to_json(from_json(text)) == text, "a configuration changes on its way"
    return True


def _stored_reply(folder: Path, source: Random) -> bool:
    store, blocks = ReplyStore(folder / "replies"), (b"one", b"two" * 40)
    store.put(ROUND, blocks)
    (path,) = (folder / "replies").rglob("*.blocks")
    path.write_bytes(mutate.changed(source, path.read_bytes()))
    assert store.get(ROUND) == blocks, "other bytes than were stored"
    return True


def _note(source: Random) -> bool:
    real = Note(5, 6, {"ledger.jsonl": Mark(12, "ab" * 32)}, "cd" * 16, (1, 2),
                source.choice((0, 7))).packed()
    content = mutate.changed(source, real)
    if source.random() < 0.7:  # with the right check, so that what lies inside is read
        text = mutate.ledger_line(source, real.partition(b"\n")[2])
        content = hashlib.sha256(text).hexdigest().encode() + b"\n" + text
    note = parse_note(content)
    assert parse_note(note.packed()) == note
    return True


def _ledger(path: Path, source: Random) -> bool:
    """Lines chained as they should be, of which one holds something else, and damaged files."""
    path.unlink(missing_ok=True)
    pure = source.random() < 0.5
    step = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0))
    events = [dp.GaussianDpEvent(10.0), dp.GaussianDpEvent(20.0) if pure else
              dp.ComposedDpEvent([dp.SelfComposedDpEvent(step, 3), dp.GaussianDpEvent(30.0)])]
    for number in (1, 2, 3):
        Ledger(path, None, 1e-5).spend("5eed", number, events[number % 2], failure=1e-9)
    lines = path.read_bytes().splitlines()
    at = source.randrange(3)
    kind = source.random()
    if kind < 0.6:
        lines[at] = mutate.ledger_line(source, lines[at])
    elif kind < 0.8:
        lines[at] = mutate.changed(source, lines[at])
    content = b"".join(line + b"\n" for line in (_rechained(lines) if kind < 0.5 else lines))
    path.write_bytes(mutate.changed(source, content) if kind > 0.8 else content)
    assert not math.isnan(Ledger(path, 3.0, 1e-5).spent())
    return True


def _rechained(lines: list[bytes]) -> list[bytes]:
    """Each line naming the one before, where it can be read."""
    made: list[bytes] = []
    for line in lines:
        try:
            fields = json.loads(line)
            if made:
                fields["previous"] = hashlib.sha256(made[-1]).hexdigest()
            made.append(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
        except (ValueError, TypeError, RecursionError):
            made.append(line)
    return made
