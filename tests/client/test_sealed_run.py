"""What a sealed model weighs on its way to the partners."""

from __future__ import annotations

import numpy as np

from client.sealed_run import pack_model, unpack_model
from encryption.parameters import choose_parameters
from keyholder.keys import SharedKey
from keyholder.vault import Kind, Vault, run_hash

PARAMETERS = 1_663_370


def test_a_large_sealed_model_takes_four_bytes_a_parameter() -> None:
    vault = Vault(SharedKey.generate(choose_parameters("shared_key", 8, 16)), run_hash("a run"))
    vector = np.random.default_rng(0).normal(size=PARAMETERS).astype(np.float32)
    sealed = vault.seal(Kind.MODEL, 2, bytes(32), pack_model({"task": "any"}, vector))
    assert 4 <= len(sealed) / PARAMETERS < 4.001
    opened = unpack_model(vault.open(Kind.MODEL, 2, sealed)[1])
    np.testing.assert_array_equal(opened.vector, vector)
