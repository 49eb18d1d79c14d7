"""Write the frozen vectors anew: ``python -m tests.vectors.make``. Only for a new wire version.

The key in them protects nothing.
"""

import json
from pathlib import Path

import numpy as np

from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import RoundId
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
from keyholder.tags import tags

FOLDER = Path(__file__).parent
ROUND = RoundId("5eed", 7)
VALUES = 300


def values(partner: int) -> np.ndarray:
    """(VALUES,) a formula, so that the vectors do not depend on a generator of numbers."""
    return (np.arange(VALUES, dtype=np.int64) * 7919 + 104729 * partner) % 65536 - 32768


def main() -> None:
    for suite in ("shared_key", "shared_key_rlwe", "plaintext"):
        parameters = choose_parameters(suite, 6, 16)
        layout = ControlLayout(VALUES, 6, parameters)
        key = SharedKey.generate(parameters)
        (FOLDER / f"{suite}.key").unlink(missing_ok=True)
        key.save(FOLDER / f"{suite}.key")
        accumulator = make_accumulator(layout)
        for partner in (0, 1):
            blocks = Sealer(key, layout, partner).seal(values(partner), ROUND)
            (FOLDER / f"{suite}.{partner}.bin").write_bytes(b"".join(blocks))
            accumulator.fold(blocks)
        (FOLDER / f"{suite}.json").write_text(json.dumps({
            "fingerprint": parameters.fingerprint,
            "key_id": key.key_id,
            "digest_of_sum": digest(accumulator.finish()).hex(),
            "tags_of_values_0": list(tags(values(0), key, ROUND)),
        }, indent=1) + "\n")


if __name__ == "__main__":
    main()
