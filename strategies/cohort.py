"""Who takes part: the nodes that joined, the one that speaks for each partner, and asking them.

A partner whose SuperNode was restarted comes back as another Flower node, so a run may not tie it
to the first one. Guarantees: a node speaks for a partner only after it joined for it, with the key
that the run's partners hold; while it is connected no other node takes its place.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from encryption.types import Refused
from strategies import layout
from strategies.exchange import Mail, Patience, ask

log = logging.getLogger("veilsum")
_TRIES = 3
"""How often one node is asked for one answer, where its client fails each time."""
_FIRST_WORD_S, _NEXT_WORD_S = 10.0, 60.0


class TooFewUpdates(RuntimeError):
    """A round, or the start, got fewer partners than the quorum. ``missing``: who said nothing."""

    def __init__(self, got: int, need: int, refused: Mapping[str, str] | None = None,
                 missing: Collection[str] = ()) -> None:
        reasons = [f"{who}: {why}" for who, why in (refused or {}).items()]
        if missing:
            reasons.append(f"missing: {', '.join(missing)}")
        super().__init__(
            f"{got} of at least {need} partners took part"
            + (f" ({'; '.join(reasons)})" if reasons else "")
            + ". Noise shares are missing, so nothing was opened. "
            + ("Why a partner refused, or its client failed, stands in the log of its site: mend "
               "it there. " if refused else "")
            + ("Start the missing clients. " if len(missing) > len(refused or {}) else "")
            + "Then give the same command again: it goes on with this run where federation.folder "
            "or the run config's state-path keeps it, and begins anew elsewhere. Another "
            "strategy.quorum is a new run: it spends privacy again, and a lower one raises every "
            "partner's noise."
        )
        self.got, self.need = got, need


class KeysDiffer(RuntimeError):
    """Partners hold different keys, so their sums could never be opened."""


@dataclass
class Cohort:
    """``partners``: all names of the federation in the order of the partner map; ``nodes``:
    partner name -> the Flower node that speaks for it; ``refused``: who was not let in, and
    why."""

    partners: tuple[str, ...]
    run: str
    fingerprint: str
    nodes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """Partner -> the round whose model it is known to hold (:class:`layout.JoinReply`)."""
    _keys: dict[str, str] = field(default_factory=dict)
    _key_id: str | None = None
    _claims: dict[int, layout.JoinReply] = field(default_factory=dict)
    """What nodes said when they joined, in that order."""
    _connected: set[int] = field(default_factory=set)
    _asked: Counter[int] = field(default_factory=Counter)
    _out: set[int] = field(default_factory=set)
    """Connected nodes that refused for good: what is wrong at their site passes by no waiting."""
    _mail: Mail = field(default_factory=Mail)

    def index(self, partner: str) -> int:
        return self.partners.index(partner)

    @property
    def missing(self) -> list[str]:
        """Partners that never joined."""
        return [name for name in self.partners if name not in self.nodes]

    @property
    def hopeless(self) -> bool:
        """Whether each partner that is missing is here, as far as one can tell, and refuses: as
        many nodes refused for good as partners are missing."""
        return 0 < len(self.missing) <= len(self._out)

    @property
    def lost(self) -> list[str]:
        """Partners that joined and are not connected now."""
        return [name for name, node in self.nodes.items() if node not in self._connected]

    def look(self, grid: Grid) -> bool:
        """Ask new nodes who they are, read who answered, and let a partner whose node is gone
        speak through the next that joined for it. Waits for nothing; True where a node
        answered."""
        nodes = list(grid.get_node_ids())
        self._connected = set(nodes)
        self._out &= self._connected
        for gone in set(self._asked) - self._connected:
            del self._asked[gone]  # one that comes back under its own id is asked again
        new = [node for node in nodes if not self._asked[node]]
        self._join(grid, new)
        answered = False
        for node, reply in self._mail.pull(grid):
            answered = True
            self._hear(grid, node, reply)
        self._seat()
        return answered

    def may_answer(self, partner: str, error: Refused) -> bool:
        """Whether asking again may help: its node failed, or it lacks receipts that this server
        took it to hold (its folder was lost, say), and gets them all with the next request."""
        if isinstance(error, layout.PartnerRefused) and error.reason == layout.RECEIPTS_MISSING:
            return self.newest.pop(partner, 0) > 0
        return isinstance(error, layout.ClientFailed) and error.passing

    def agree(self) -> None:
        """From now on nobody joins with another key. Raises KeysDiffer."""
        if len(set(self._keys.values())) > 1:
            raise KeysDiffer("partners hold different keys: " + ", ".join(
                f"{name} {key}" for name, key in sorted(self._keys.items()))
                + ". Hand out one key again.")
        self._key_id = next(iter(self._keys.values()))
        self._claims = {node: claim for node, claim in self._claims.items()
                        if claim.key_id == self._key_id}

    def replies(self, grid: Grid, content: Callable[[str], RecordDict], message_type: str,
                group: str, timeout_s: float, wanted: Callable[[], Collection[str]],
                enough: Callable[[Collection[str]], bool]) -> Iterator[tuple[str, Message]]:
        """Ask each of the partners in ``wanted()`` for ``content(partner)`` and yield (partner,
        reply) in the order of arrival, one reply a partner at a time. Who joins meanwhile is asked
        too, and who is still wanted after its reply, because its node failed, is asked again once
        it is back. Ends when nobody is at work and ``enough(partners that may yet answer)``, or
        after ``timeout_s``."""
        patience, mail, tries = Patience(timeout_s), Mail(), Counter[int]()
        at_work: dict[int, str] = {}
        reminder = Reminder(log.warning)
        while True:
            progressed = self.look(grid)
            for gone in set(tries) - self._connected:
                del tries[gone]
            ready = {node: name for name, node in self._due(wanted(), at_work.values(), tries)}
            mail.push(grid, ask({node: content(name) for node, name in ready.items()},
                                message_type, group))
            tries.update(ready.keys())
            at_work = {node: name for node, name in (at_work | ready).items()
                       if node in mail.nodes}
            for node, reply in mail.pull(grid):
                progressed = True
                yield at_work[node], reply
            at_work = {node: name for node, name in at_work.items() if node in mail.nodes}
            possible = [name for name in wanted() if not self._gave_up(name, tries)]
            idle = not at_work and not self._due(possible, (), tries)
            if (idle and enough(possible)) or not patience.left_s:
                return
            if idle:
                reminder.say(f"round {group}: waiting for {', '.join(possible)} to connect; up to "
                             f"{patience.left_s:.0f} s")
            patience.rest(progressed)

    def _due(self, wanted: Collection[str], at_work: Collection[str],
             tries: Mapping[int, int]) -> list[tuple[str, int]]:
        """(partner, node) of those that can be asked now."""
        return [(name, node) for name, node in self.nodes.items()
                if name in wanted and name not in at_work and node in self._connected
                and tries.get(node, 0) < _TRIES]

    def _gave_up(self, partner: str, tries: Mapping[int, int]) -> bool:
        """Its node is there, and its client failed too often."""
        node = self.nodes.get(partner)
        return node in self._connected and tries.get(node, 0) >= _TRIES

    def _join(self, grid: Grid, nodes: Collection[int]) -> None:
        content = layout.join_request(self.run, self.fingerprint)
        self._mail.push(grid, ask(dict.fromkeys(nodes, content), layout.JOIN, "join"))
        self._asked.update(nodes)

    def _hear(self, grid: Grid, node: int, reply: Message) -> None:
        try:
            claim = layout.parse_join_reply(reply)
            if claim.partner not in self.partners:
                raise Refused("it names a partner that this federation does not have")
            if self._key_id not in (None, claim.key_id):
                raise Refused("it holds another key than the partners of this run")
        except Refused as error:
            self._claims.pop(node, None)
            self.refused[f"node {node}"] = str(error)
            log.warning("node %d was not let in: %s (its SuperNode's log gives this number as "
                        "SuperNode ID, and says more)", node, error)
            passing = isinstance(error, layout.ClientFailed) and error.passing
            if passing and node in self._connected and self._asked[node] < _TRIES:
                self._join(grid, [node])
            elif not passing and isinstance(error, layout.PartnerRefused | layout.ClientFailed):
                self._out.add(node)
            return
        self.refused.pop(f"node {node}", None)
        self._out.discard(node)
        self._claims[node] = claim
        if self.nodes.get(claim.partner, node) != node and self._speaks(claim.partner):
            log.warning("node %d also says that it is %s; it waits until node %d is gone", node,
                        claim.partner, self.nodes[claim.partner])

    def _speaks(self, partner: str) -> bool:
        """Whether the partner's node is connected and still says that it is this partner's."""
        node = self.nodes.get(partner)
        claim = self._claims.get(node) if node in self._connected else None
        return claim is not None and claim.partner == partner

    def _seat(self) -> None:
        for node, claim in self._claims.items():
            if node not in self._connected or self._speaks(claim.partner):
                continue
            if claim.partner in self.nodes or self._key_id is not None:
                log.warning("%s joins late, or is back, as node %d", claim.partner, node)
            self.nodes = {name: seat for name, seat in self.nodes.items() if seat != node}
            self.nodes[claim.partner], self._keys[claim.partner] = node, claim.key_id
            self.newest[claim.partner] = claim.newest
        kept = self._connected | set(self.nodes.values())
        self._claims = {node: claim for node, claim in self._claims.items() if node in kept}


@dataclass
class Reminder:
    """Says now and then what is waited for, not at every poll."""

    tell: Callable[[str], None]
    _due: float = field(default_factory=lambda: time.monotonic() + _FIRST_WORD_S)

    def say(self, text: str) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _NEXT_WORD_S
            self.tell(text)


def join(grid: Grid, partners: tuple[str, ...], quorum: int, run: str, fingerprint: str,
         timeout_s: float, tell: Callable[[str], None] = log.warning) -> Cohort:
    """Ask every node that connects who it is, until all partners are there, or those that are not
    have refused for good, or time is up. ``tell`` hears now and then who is awaited.

    Raises TooFewUpdates below the quorum and KeysDiffer when key identifiers disagree.
    """
    cohort = Cohort(partners, run, fingerprint)
    patience, reminder = Patience(timeout_s), Reminder(tell)
    while True:
        progressed = cohort.look(grid)
        missing = cohort.missing
        if not missing or cohort.hopeless or not patience.left_s:
            break
        reminder.say(f"waiting for {', '.join(missing)} ({len(cohort.nodes)} of {len(partners)} "
                     f"partners are here; up to {patience.left_s:.0f} s)")
        patience.rest(progressed)
    if len(cohort.nodes) < quorum:
        raise TooFewUpdates(len(cohort.nodes), quorum, cohort.refused, missing)
    cohort.agree()
    return cohort
