"""One partner's update to blocks that only key holders can read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encryption.control import ControlLayout
from encryption.types import RoundId
from keyholder.ciphers import make_cipher
from keyholder.keys import SharedKey
from keyholder.tags import tags, to_digits


class Sealer:
    """Seals updates of one layout as one partner.

    ``partner_index``: the partner's place in the federation's list. Raises KeyFileError if the key
    was made for other parameters.
    """

    def __init__(self, key: SharedKey, layout: ControlLayout, partner_index: int) -> None:
        if not 0 <= partner_index < layout.partners:
            raise ValueError(f"partner_index must lie in 0..{layout.partners - 1}")
        self._key, self._layout, self._partner = key, layout, partner_index
        self._cipher = make_cipher(key, layout.parameters)

    def seal(self, values: NDArray[np.int64], round_id: RoundId) -> tuple[bytes, ...]:
        """(values,) integers in [-2^(bits-1), 2^(bits-1) - 1] -> blocks of wire bytes.

        Fresh randomness on every call: seal once a round, and resend the same bytes. Raises
        ValueError, without data, for another type, shape or range.
        """
        layout = self._layout
        if values.dtype != np.int64 or values.shape != (layout.values,):
            raise ValueError(f"the update must be {layout.values} values of type int64")
        half = 1 << (layout.parameters.bits - 1)
        if int(values.min()) < -half or int(values.max()) >= half:
            raise ValueError(f"a value does not fit {layout.parameters.bits} signed bits")
        digits = np.zeros(layout.digits, np.int64)
        digits[: layout.values] = values
        digits[layout.constant] = 1
        digits[layout.partner_map][self._partner] = 1
        found = tags(digits[: layout.covered], self._key, round_id)
        digits[layout.tags] = to_digits(found, layout)
        return self._cipher.encrypt(digits, round_id.round, self._partner)
