"""Why a sum stays closed. The names travel; no message carries data."""

from __future__ import annotations

from encryption.types import Refused


class OpeningRefused(Refused):
    """A sum that is not opened."""


class AnotherSumClaimed(OpeningRefused):
    """The round was already claimed for another set of partners or another sum."""


class KeyRetired(OpeningRefused):
    """An earlier opening of this run, or with this key, failed its checks."""


class QuorumNotMet(OpeningRefused):
    """Fewer partners than this opener accepts."""


class DigestMismatch(OpeningRefused):
    """The blocks are not those that the claim names."""


class GridCheckFailed(OpeningRefused):
    """A slot lies further from the integer grid than honest sums ever do."""


class DigitOutOfRange(OpeningRefused):
    """A digit that no sum of this many partners can have."""


class ConstantMismatch(OpeningRefused):
    """The number of updates inside the sum is not the number of partners claimed."""


class PartnerMapMismatch(OpeningRefused):
    """The partners inside the sum are not each claimed partner exactly once."""


class TagMismatch(OpeningRefused):
    """The authentication tags do not belong to these digits in this run and round."""


class AnotherSetOnThisModel(OpeningRefused):
    """From the same model a sum was, or may be, opened over another set of partners."""


class SealBroken(Refused):
    """A sealed model or state that no key holder made for this place. Nothing was opened."""
