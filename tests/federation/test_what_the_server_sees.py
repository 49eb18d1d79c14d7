"""A whole run with a server that keeps everything: no key in it, and none to be had from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_to_proto

import experiments.local_grid
from encryption.parameters import choose_parameters
from encryption.types import Parameters
from experiments.local_grid import run_server_app
from experiments.simulate import simulate
from keyholder.ciphers import make_cipher
from keyholder.keys import SharedKey
from strategies import layout
from tests.adversary import blocks, recovery
from tests.federation.test_faults import FaultyGrid

ROUNDS = 2


class KeepingGrid(FaultyGrid):
    """Keeps what it passes on."""

    def __init__(self, inner: object, kept: list[RecordDict]) -> None:
        super().__init__(inner, lambda message: [message])
        self._kept = kept

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        self._kept.extend(message.content for message in sent)
        return super().push_messages(sent)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        received = list(super().pull_messages(message_ids))
        self._kept.extend(message.content for message in received if message.has_content())
        return received


@pytest.fixture
def watched(configure: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """watched(suite, opening) -> (all that the server got or sent, the key)."""

    def run(suite: str, opening: str) -> tuple[list[RecordDict], SharedKey]:
        kept: list[RecordDict] = []
        keys: list[SharedKey] = []
        generate = SharedKey.generate.__func__

        def remembered(cls: type[SharedKey], parameters: Parameters) -> SharedKey:
            keys.append(generate(cls, parameters))
            return keys[-1]

        def wrapped(app: object, grid: object, run_config: object) -> object:
            return run_server_app(app, KeepingGrid(grid, kept), run_config)

        monkeypatch.setattr(SharedKey, "generate", classmethod(remembered))
        monkeypatch.setattr(experiments.local_grid, "run_server_app", wrapped)
        simulate(configure(encryption={"name": suite, "opening": opening},
                           strategy={"rounds": ROUNDS}))
        (key,) = keys
        return kept, key

    return run


def _parsed(kept: list[RecordDict], parse: Callable) -> list:
    found = []
    for content in kept:
        try:
            found.append(parse(content))
        except layout.Refused:
            continue
    return found


@pytest.mark.parametrize(("suite", "opening"), [
    ("shared_key", "revealed"), ("shared_key_rlwe", "revealed"), ("shared_key", "sealed")])
def test_a_run_gives_no_key_away(watched: Callable, suite: str, opening: str) -> None:
    kept, key = watched(suite, opening)
    everything = b"".join(recorddict_to_proto(content).SerializeToString() for content in kept)
    for secret in (key._tag_key, key.cipher_key()[:64], key.cipher_key()[-64:]):
        assert bytes(secret) not in everything
    assert key.key_id.encode() in everything  # the search finds what is there

    requests = _parsed(kept, layout.parse_open_request)
    assert len(requests) == ROUNDS + 1  # and the test release
    if suite == "shared_key":
        for request in requests:
            _attack(key, request)


def _attack(key: SharedKey, request: layout.OpenRequest) -> None:
    """With more than the server gets: the digits of the tags, which never leave the opener."""
    parameters = choose_parameters("shared_key", 3, 16)
    cipher, size = make_cipher(key, parameters), (parameters.values_per_block,)
    (block,) = request.blocks
    parsed = cipher.parse(request.blocks, size, request.claim.round_id.round)
    believed = blocks.believed(parameters, cipher.decrypt(parsed, size, 3))
    found = blocks.attack(parameters, block, lambda *_: believed)
    assert found is not None and not recovery.is_ternary(found)
    unrounded = blocks.attack(parameters, block, blocks.exact(key, parameters))
    assert unrounded is not None and recovery.is_ternary(unrounded)
