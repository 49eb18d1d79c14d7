"""The ``veilsum`` command."""

from __future__ import annotations

import importlib
import sys

from experiments.stopping import exit_code, obeying_sigterm

VERBS = {
    "simulate": ("experiments.simulate", "run a federation in this process, on real data"),
    "newcomer": ("experiments.newcomer", "what joining gives a partner with few customers"),
    "results": ("experiments.results", "run the comparison of the README and write its table"),
    "describe-data": ("experiments.describe_data", "what a partner shares; do partners agree?"),
    "export": ("experiments.export", "open a sealed model with the federation's key"),
    "validate-data": ("experiments.validate_data", "check a table before training on it"),
    "policy": ("experiments.policy", "write a site's policy; is a run within it?"),
    "exposure": ("experiments.exposure", "what many runs tell about one partner, in numbers"),
    "site": ("experiments.site_folder", "does a site's state folder hold together? after a loss"),
    "compare": ("experiments.compare", "what two recorded runs differ in, and what came of it"),
    "ui": ("experiments.ui", "open the recorded runs in MLflow"),
}


def usage() -> str:
    verbs = "\n".join(f"  {verb:<15}{text}" for verb, (_, text) in VERBS.items())
    return (
        "veilsum: train one model across companies that may not show each other their "
        "customers' data\n\n"
        f"usage: veilsum VERB [...]\n\n{verbs}\n\n"
        "veilsum VERB --help explains one. Start with: veilsum simulate\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the run failed, 2 what was typed or the data is wrong, 130 stopped
    by Ctrl-C, 143 by SIGTERM."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"veilsum: no verb {verb!r}\n\n{usage()}", end="", file=sys.stderr)
        return 2
    try:
        with obeying_sigterm():
            return int(importlib.import_module(VERBS[verb][0]).main(rest) or 0)
    except KeyboardInterrupt as stopped:
        print(f"\nveilsum {verb}: stopped", file=sys.stderr)
        return exit_code(stopped)


if __name__ == "__main__":
    sys.exit(main())
