"""Have a finished sum opened by the run's opener."""

from __future__ import annotations

import logging

from flwr.app import Message
from flwr.serverapp import Grid

from encryption.types import Refused
from strategies import layout
from strategies.cohort import Cohort

log = logging.getLogger("veilsum")


class OpeningFailed(RuntimeError):
    """The opener refused the sum. The run ends: asking again would make it an oracle."""


def opened(grid: Grid, cohort: Cohort, opener: str, request: layout.OpenRequest, values: int,
           timeout_s: float) -> layout.OpenReply:
    """The opener's answer, with ``values`` integers. One whose node fails is asked for the same
    sum when it is back: it gives what it gave, or would have given, the first time. Raises
    OpeningFailed."""
    number, failure = request.claim.round_id.round, ""
    replies = cohort.replies(grid, layout.open_request(request), layout.OPEN, str(number),
                             timeout_s, lambda: [opener], lambda possible: not possible)
    for _, reply in replies:
        try:
            return _answer(reply, values, request)
        except Refused as error:
            failure = f": {error}"
            if not (isinstance(error, layout.ClientFailed) and error.passing):
                raise OpeningFailed(f"{opener} did not open round {number}{failure}") from None
            log.warning("round %d: %s%s", number, opener, failure)
    if opener in cohort.missing:
        raise OpeningFailed(f"the opener {opener} did not join; name another one "
                            "with strategy.opener")
    raise OpeningFailed(f"{opener} did not answer within {timeout_s:g} s{failure}; is its client "
                        "running?")


def _answer(reply: Message, values: int, request: layout.OpenRequest) -> layout.OpenReply:
    """Raises Refused, and OpeningFailed for another sum."""
    answer = layout.parse_open_reply(reply, values)
    if answer.opened.partners != request.claim.partners:
        raise OpeningFailed(f"round {request.claim.round_id.round}: the opened sum holds other "
                            "partners than those that were folded")
    return answer
