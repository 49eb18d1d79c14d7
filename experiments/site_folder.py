"""``veilsum site``: does a site's state folder hold together, and how it goes on after a loss."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_PARTS = ("ledger.jsonl", "ledger-heldout.jsonl", "answered", "replies", "keys", "split.json",
          "openings", "heads", "leftovers", "sets", "models")


def main(argv: list[str]) -> int:
    """Exit codes: 0 all parts agree (or agree again), 1 a part is lost, 2 wrong input."""
    arguments = _parser().parse_args(argv)
    if not arguments.state.is_dir():
        print(f"veilsum site: there is no folder {arguments.state}; give the state-path of the "
              "site's node configuration", file=sys.stderr)
        return 2
    if not any((arguments.state / part).exists() for part in _PARTS):
        print(f"veilsum site: {arguments.state} holds no part of a site's state folder: it is "
              "another folder, or a site that took part in nothing yet, or all of it is lost "
              "(docs/site_folder.md)", file=sys.stderr)
        return 2
    if arguments.act == "check":
        return _check(arguments.state)
    return _accept(arguments.state, arguments.spent, arguments.delta)


def _check(state: Path) -> int:
    from client.site_folder import SiteFolder

    losses = SiteFolder(state).losses()
    for loss in losses:
        print(f"{loss.part}: {loss.what}")
    print(f"{len(losses)} {'loss' if len(losses) == 1 else 'losses'}; `veilsum site accept-loss "
          f"{state}` goes on without a backup" if losses else "all parts agree")
    return int(bool(losses))


def _accept(state: Path, spent: float | None, delta: float) -> int:
    from client.site_loss import CannotAccept, Owner, accept_loss

    if spent is not None and not 0 < spent < 1e4:
        print("veilsum site: --spent must lie between 0 and 10,000", file=sys.stderr)
        return 2
    if not 0 < delta < 1e-2:
        print("veilsum site: --delta must lie between 0 and 0.01", file=sys.stderr)
        return 2
    try:
        done = accept_loss(state, Owner(spent, delta))
    except CannotAccept as error:
        print(f"veilsum site: {error}", file=sys.stderr)
        return 1
    print("\n".join(done) or "all parts agree; nothing was changed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="veilsum site", description="The parts of a site's state folder know of each other. "
        "A site that lost one joins no run until it is put back or the loss is accepted. Stop the "
        "site's SuperNode first.")
    acts = parser.add_subparsers(dest="act", required=True, metavar="check|accept-loss")
    check = acts.add_parser("check", help="say which parts are lost; changes nothing")
    accept = acts.add_parser(
        "accept-loss", help="go on without what is lost, and without a backup",
        description="A lost or damaged ledger is charged what --spent says; rounds whose answers "
        "are not known count as answered; sums whose claims are gone are never opened again.")
    for act in (check, accept):
        act.add_argument("state", type=Path, help="the state-path of the site")
    accept.add_argument("--spent", type=float, default=None, metavar="EPSILON",
                        help="the most that a lost ledger may have held; the site's epsilon-limit "
                        "if that is not known")
    accept.add_argument("--delta", type=float, default=1e-5, help="the site's delta (1e-5)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
