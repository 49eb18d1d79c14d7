"""Have a finished sum opened by the run's opener."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from encryption.types import OpeningClaim, Refused
from strategies import layout
from strategies.cohort import Cohort

log = logging.getLogger("veilsum")


class OpeningFailed(RuntimeError):
    """The opener refused the sum. The run ends: asking again would make it an oracle."""


def opened(grid: Grid, cohort: Cohort, opener: str, claim: OpeningClaim,
           content: Callable[[str], RecordDict], values: int, timeout_s: float
           ) -> layout.OpenReply:
    """The opener's answer to the request ``content(opener)``, with ``values`` integers. One whose
    node fails is asked for the same sum when it is back: it gives what it gave, or would have
    given, the first time. Raises OpeningFailed."""
    number, failure = claim.round_id.round, ""
    replies = cohort.replies(grid, content, layout.OPEN, str(number), timeout_s,
                             lambda: [opener], lambda possible: not possible)
    for _, reply in replies:
        try:
            return _answer(reply, values, claim)
        except Refused as error:
            failure = f": {error}"
            if not cohort.may_answer(opener, error):
                raise OpeningFailed(f"{opener} did not open round {number}{failure}") from None
            log.warning("round %d: %s%s", number, opener, failure)
    raise OpeningFailed(f"{opener} did not answer within {timeout_s:g} s{failure}; is its client "
                        "running?")


def check_opener(cohort: Cohort, opener: str) -> None:
    """Before anybody spends, and before partners are bound to this opener of the run's start.
    Raises OpeningFailed where it is not there."""
    if opener in cohort.missing:
        raise OpeningFailed(f"the opener {opener} did not join: nothing was asked of anybody. "
                            "Start its client, or name another one with strategy.opener")


def _answer(reply: Message, values: int, claim: OpeningClaim) -> layout.OpenReply:
    """Raises Refused, and OpeningFailed for another sum."""
    answer = layout.parse_open_reply(reply, values)
    if answer.opened.partners != claim.partners:
        raise OpeningFailed(f"round {claim.round_id.round}: the opened sum holds other "
                            "partners than those that were folded")
    return answer
