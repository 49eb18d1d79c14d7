"""One client, one server and one opener of each suite, with the same steps."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import OpeningClaim, RoundId
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer

STOCK = "tenseal_symmetric"
SUITES = (STOCK, "shared_key", "shared_key_rlwe")
CLIP = 1.0


@dataclass(frozen=True)
class Setting:
    """``clients``: the cohort that the parameters are made for; ``folded``: how many of them the
    benchmark really adds, of which each costs the same."""

    parameters: int
    clients: int
    bits: int
    folded: int = 3


class Suite(Protocol):
    """What a federation does with an update (d,) float32, each step from bytes to bytes."""

    def client(self, update: NDArray[np.float32], index: int) -> list[bytes]: ...
    def fold(self, total: Any, reply: list[bytes]) -> Any: ...
    def finish(self, total: Any) -> list[bytes]: ...
    def open(self, total: list[bytes]) -> NDArray[np.float64]: ...


def make_suite(name: str, setting: Setting) -> Suite:
    return _Stock(setting) if name == STOCK else _Veilsum(name, setting)


class _Stock:
    """TenSEAL's CKKSVector as others use it: N = 8192, primes 60, 40, 40, symmetric, scale 2^40,
    a vector for every 4,096 parameters; unverified floats."""

    def __init__(self, setting: Setting) -> None:
        import tenseal

        self._tenseal, self._size = tenseal, setting.parameters
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC)
        self._context.global_scale = 2**40
        public = self._context.serialize(save_secret_key=False)
        self._public = tenseal.context_from(public)

    def client(self, update: NDArray[np.float32], index: int) -> list[bytes]:
        return [self._tenseal.ckks_vector(self._context, update[at : at + 4096].tolist())
                .serialize() for at in range(0, self._size, 4096)]

    def fold(self, total: Any, reply: list[bytes]) -> Any:
        vectors = [self._tenseal.ckks_vector_from(self._public, part) for part in reply]
        if total is None:
            return vectors
        for old, new in zip(total, vectors, strict=True):
            old += new
        return total

    def finish(self, total: Any) -> list[bytes]:
        return [vector.serialize() for vector in total]

    def open(self, total: list[bytes]) -> NDArray[np.float64]:
        return np.concatenate([self._tenseal.ckks_vector_from(self._context, part).decrypt()
                               for part in total])


class _Veilsum:
    """Quantise, control block, tags, seal; fold; every check of the opener, claim on disk."""

    def __init__(self, name: str, setting: Setting) -> None:
        parameters = choose_parameters(name, setting.clients, setting.bits)
        self._layout = ControlLayout(setting.parameters, setting.clients, parameters)
        self._key = SharedKey.generate(parameters)
        self._step = CLIP / 2 ** (setting.bits - 1)
        self._half = 2 ** (setting.bits - 1)
        self._members = tuple(range(setting.folded))
        self._folder = tempfile.TemporaryDirectory(prefix="veilsum-")
        self._rounds = 0

    def client(self, update: NDArray[np.float32], index: int) -> list[bytes]:
        if index == 0:
            self._rounds += 1
        values = np.rint(update / self._step)
        np.clip(values, -self._half, self._half - 1, out=values)
        sealer = Sealer(self._key, self._layout, index)
        return list(sealer.seal(values.astype(np.int64), self._round))

    def fold(self, total: Any, reply: list[bytes]) -> Any:
        if total is None:
            total = make_accumulator(self._layout, self._rounds)
        total.fold(reply)
        return total

    def finish(self, total: Any) -> list[bytes]:
        return list(total.finish())

    def open(self, total: list[bytes]) -> NDArray[np.float64]:
        """With the digest that the server makes, a hash of headers."""
        opener = SumOpener(self._key, self._layout, OpeningGuard(self._folder.name), 1)
        claim = OpeningClaim(self._round, self._members, digest(total))
        return opener.open(claim, total).values * self._step

    @property
    def _round(self) -> RoundId:
        return RoundId("benchmark", self._rounds)


