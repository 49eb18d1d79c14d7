"""The Flower ClientApp that runs at a partner.

Every exception is turned into one word before it crosses to the server; its text, which may
name paths or data, goes to this site's log only.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.session import Session
from client.site import Site, SiteError
from encryption.types import Refused
from keyholder.keys import KeyFileError
from learning.tables import TableError
from privacy.ledger import BudgetExceeded
from privacy.ledger_file import LedgerBroken
from strategies import layout

log = logging.getLogger("veilsum.client")
app = ClientApp()

FOR_PEOPLE = (Refused, SiteError, TableError, KeyFileError, LedgerBroken, BudgetExceeded)
"""Errors whose text says what is wrong and what to do."""
_MOST_SESSIONS, _MOST_AT_A_SITE = 16, 2
"""A simulation's partners share a process. At a site each session holds data, and configurations
come from the server: those that it only asked for must not pile up."""
_sessions: OrderedDict[tuple[str, Site], Session] = OrderedDict()
_opening: dict[tuple[str, Site], Lock] = {}
_sessions_lock = Lock()


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Say which partner this is and which key it holds."""

    def answer(session: Session) -> RecordDict:
        run, fingerprint = layout.parse_join_request(message.content)
        if fingerprint != session.agreement.parameters.fingerprint:
            raise Refused("the request's encryption parameters differ from this site's")
        return layout.join_reply(session.join(run))

    return _answer(message, context, answer)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Contribute to one round: train, clip, add the noise share, encrypt."""
    return _answer(message, context, lambda session: layout.train_reply(
        session.contribute(layout.parse_train_request(message.content))))


@app.query("open")
def open_sum(message: Message, context: Context) -> Message:
    """Open the sum of a round, at the partner that the run names as its opener."""
    return _answer(message, context, lambda session: layout.open_reply(
        session.open_sum(layout.parse_open_request(message.content))))


def _answer(
    message: Message, context: Context, work: Callable[[Session], RecordDict]
) -> Message:
    try:
        session = _session(context)
        with session.lock:
            content = work(session)
    except Exception as error:
        _log(error, str(context.node_config.get("partner", "")))
        # A table that a site cannot use is the site's own business: not what is wrong with it.
        known = SiteError if isinstance(error, TableError) else type(error)
        content = layout.refusal(known.__name__)
    return Message(content, reply_to=message)


def _log(error: Exception, partner: str) -> None:
    """Why, to this site's own log: a line for what its people can mend, all there is for a fault
    of the program."""
    if isinstance(error, OSError):
        log.error("%s: could not write or read: %s; make room or mend the disk, then the server "
                  "may ask again", partner, error)
    elif isinstance(error, FOR_PEOPLE):
        log.warning("%s: refused: %s", partner, error)
    else:
        log.exception("%s: this site could not answer", partner)


def _session(context: Context) -> Session:
    """The run's session; in a process that lives for several messages it is made once."""
    site = Site.from_node_config(context.node_config)
    key = (str(context.run_config.get("config", "")), site)
    with _sessions_lock:
        opening = _opening.setdefault(key, Lock())
    try:
        with opening:
            session = _sessions.get(key)
            if session is None:
                session = _sessions[key] = Session.start(key[0], site)
                most = _MOST_SESSIONS if site.policy is None else _MOST_AT_A_SITE
                while len(_sessions) > most:
                    _sessions.popitem(last=False)
            return session
    finally:
        with _sessions_lock:  # configurations come from the server: locks must not pile up
            _opening.pop(key, None)
