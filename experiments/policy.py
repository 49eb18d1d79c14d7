"""``veilsum policy``: a site's first policy, and whether a configuration is within one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """\
A policy lies at a partner's site, as policy.toml in its state folder or where policy-path of its
node configuration says, and holds whatever an operator's server asks for.

  veilsum policy write state/policy.toml north=600 south=400 west=250
  veilsum policy check run.json state/policy.toml

NAME=CUSTOMERS is about how many customers a partner trains on, as partners tell each other; this
site is one of them. run.json is what the operator passes to `flwr run` as `config`.

Exit code: 0 written, or the run is allowed; 2 otherwise.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum policy", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a site's first policy, or check a run against one.", epilog=EPILOG)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write", help="write a commented file with the defaults")
    write.add_argument("file", type=Path, metavar="FILE")
    write.add_argument("partners", nargs="+", metavar="NAME=CUSTOMERS")
    check = verbs.add_parser("check", help="say what of a run a policy refuses, and why")
    check.add_argument("config", type=Path, metavar="CONFIG.json")
    check.add_argument("file", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    try:
        if options.verb == "write":
            return _write(options.file, options.partners)
        return _check(options.config, options.file)
    except _known_errors() as error:
        print(f"veilsum policy: {error}", file=sys.stderr)
        return 2


def _known_errors() -> tuple[type[Exception], ...]:
    from client.policy import PolicyRefused
    from client.policy_file import PolicyError
    from conf.schema import InvalidConfig

    return PolicyError, PolicyRefused, InvalidConfig, OSError


def _write(file: Path, partners: list[str]) -> int:
    """Never over a file that is there: it may be a site's own. Raises PolicyError, OSError."""
    from client.policy_file import PolicyError, parse, starter

    customers: dict[str, int] = {}
    for text in partners:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal():
            raise PolicyError(f"{text!r}: write NAME=CUSTOMERS, north=600 say")
        if name in customers:
            raise PolicyError(f"{name!r} is named twice")
        customers[name] = int(count)
    text = starter(customers)
    policy = parse(text)
    if not file.parent.is_dir():
        raise PolicyError(f"there is no folder {file.parent}; make the site's state folder first")
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise PolicyError(f"{file} is there already; edit it, or move it away") from None
    print(f"{file}: a policy for {', '.join(customers)}. Read it before the site's first run.")
    others = sum(sorted(customers.values())[:-1])
    if others < policy.least_customers:
        print(f"Beside the largest partner there are {others} customers, fewer than "
              f"least_customers = {policy.least_customers}: it refuses every run until you lower "
              "that, or the federation grows.")
    return 0


def _check(config: Path, file: Path) -> int:
    """Raises PolicyError, PolicyRefused, InvalidConfig, OSError."""
    from client.policy_file import read
    from conf.compose import from_json
    from conf.schema import InvalidConfig

    policy = read(file)
    try:
        run = from_json(config.read_text(encoding="utf-8"))
    except UnicodeError:
        raise InvalidConfig(str(config), "is not UTF-8") from None
    policy.check(run)
    print(f"{config}: allowed by {file}. The site's epsilon-limit is its ledger's to check.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
