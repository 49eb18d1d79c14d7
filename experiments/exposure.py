"""``veilsum exposure``: what an operator can learn about one partner over many runs, in numbers."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from client.policy import SitePolicy
    from conf.schema import Config
    from privacy.exposure import Estimate, Noise

TYPICAL_PULL = 0.5
"""A partner's clipped sum over what it would be if all customers pulled one way at their clip:
.45 to .50 at the start of task=retail_repeat (this command measures it in a simulation)."""
EPILOG = """\
For every partner, and for the policy's least_quorum and lower ones: the relative error (root mean
square) and the expected cosine of the best linear estimate of this partner's own clipped update at
one model, from the sums of all sets of partners that may be opened, as often as the site's
epsilon-limit admits. 1.00 means that nothing is learned. A site's policy keeps least_quorum at all
partners unless it says otherwise: then one set alone is ever opened, and what stands there is what
the sum itself says, with updates that are unrelated. Updates of partners whose customers are alike
point the same way, and then the sum, and the model, show that direction: no policy hides it.

  veilsum exposure                                  the bundled data, norms measured at the start
  veilsum exposure --limit 10 task=utility_load
  veilsum exposure --policy policy.toml strategy.rounds=50

That sites step the model themselves changes nothing here: a server that is refused a model of its
own starts runs of one round from the public start, or long ones at a learning rate of nearly 0.
Both cost what the rounds cost, so the limit and the sets decide, not who chooses the model.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum exposure", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="What many runs tell about one partner, in numbers.", epilog=EPILOG)
    parser.add_argument("--policy", type=Path, metavar="FILE",
                        help="a site's policy; its [partners] take the place of the data's")
    parser.add_argument("--limit", type=float, default=3.0, metavar="EPSILON",
                        help="the site's epsilon-limit (default: %(default)s)")
    parser.add_argument("--delta", type=float, default=1e-5,
                        help="at which it is counted (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE",
                        help="the run, as in `veilsum simulate`")
    options = parser.parse_intermixed_args(argv)
    if not 0 < options.limit < 1000 or not 0 < options.delta < 1e-2:
        parser.error("--limit must lie between 0 and 1000, --delta between 0 and .01")
    from client.policy_file import PolicyError, read
    from experiments.launch import compose_and_run

    try:
        policy = None if options.policy is None else read(options.policy)
    except PolicyError as error:
        print(f"veilsum exposure: {error}", file=sys.stderr)
        return 2
    return compose_and_run(
        "veilsum exposure", options.overrides,
        lambda config: _print(exposure(config, policy, options.limit, options.delta)))


@dataclass(frozen=True)
class Row:
    """One partner with one size of its update. estimates: by least_quorum."""

    partner: str
    customers: int
    update: str
    norm_clips: float
    estimates: dict[int, Estimate]


@dataclass(frozen=True)
class Exposure:
    rows: tuple[Row, ...]
    rounds: int
    runs: int
    size: int
    limit: float
    delta: float
    quorums: tuple[int, ...]
    alike: tuple[float, ...]
    """In a simulation: cosine of each partner's update with the sum of all, at the start."""


def exposure(config: Config, policy: SitePolicy | None, limit: float, delta: float) -> Exposure:
    """Of the partners that ``policy``, the configuration or else the simulation's table names.
    Raises InvalidConfig."""
    from client.policy import SitePolicy
    from privacy.exposure import Noise, rounds_admitted, runs_admitted
    from strategies.agreement import Agreement

    config, updates = _with_partners(config, policy)
    policy = policy or SitePolicy.known(config.federation.customers)
    plan = Agreement.of(config).training
    update, noise = plan.region("update"), Noise.of(plan, config.privacy.colluders)
    rounds = rounds_admitted(plan, limit, delta)
    quorums = _quorums(policy, config)
    customers = np.array([config.federation.customers[name]
                          for name in config.federation.partners], np.float64)
    rows: list[Row] = []
    sizes = np.linalg.norm(updates, axis=1)
    pulls = {"largest": customers, **({"measured": sizes / update.clip_norm} if len(updates) else
                                      {"typical": TYPICAL_PULL * customers})}
    for label, clips in pulls.items():
        norms = np.maximum(clips, 1e-9) * update.clip_norm * noise.gain
        found = _estimates(noise, rounds, quorums, norms, update.size)
        rows += [Row(name, int(customers[at]), label, float(clips[at]), found[at])
                 for at, name in enumerate(config.federation.partners)]
    rows.sort(key=lambda row: config.federation.partners.index(row.partner))
    total = updates.sum(axis=0)
    alike = updates @ total / np.maximum(sizes * np.linalg.norm(total), 1e-300)
    return Exposure(tuple(rows), rounds, runs_admitted(plan, limit, delta), update.size, limit,
                    delta, quorums, tuple(alike.tolist()))


def _quorums(policy: SitePolicy, config: Config) -> tuple[int, ...]:
    """The policy's and lower ones to compare it with: all but one, and the least that there can
    be."""
    partners = len(config.federation.partners)
    fewest = 2 if config.privacy.name != "noise_shares" else config.privacy.colluders + 1
    own = min(policy.least_quorum, partners)
    return tuple(sorted({own, *(count for count in (partners - 1, fewest)
                                if fewest <= count < own)}, reverse=True))


def _estimates(noise: Noise, rounds: int, quorums: tuple[int, ...], norms: np.ndarray,
               size: int) -> list[dict[int, Estimate]]:
    """For each partner, by least_quorum; norms: (n,)."""
    from privacy.exposure import most_telling, sets_of

    sets = {quorum: sets_of(len(norms), quorum) for quorum in quorums}
    return [{quorum: most_telling(sets[quorum], noise, rounds, norms, size, at)
             for quorum in quorums} for at in range(len(norms))]


def _with_partners(config: Config, policy: SitePolicy | None) -> tuple[Config, np.ndarray]:
    """The configuration of a deployment, and, where it is a simulation's, each partner's clipped
    update at the start model (n, d), else (0, d). Raises InvalidConfig."""
    if policy is not None:
        named = dict(zip(policy.partners, policy.customers, strict=True))
        config = replace(config, federation=replace(
            config.federation, partners=list(named), customers=named)).validate()
    if config.federation.partners:
        return config, np.zeros((0, 1))
    from experiments.simulate import prepared

    with tempfile.TemporaryDirectory() as folder:
        config = prepared(config, Path(folder))
        return config, _measured(config)


def _measured(config: Config) -> np.ndarray:
    """(n, d) sums of clipped updates of the shared parameters, without noise."""
    from client.local_round import update_sum
    from learning.registry import head_mask, load_partner, make_model
    from strategies.agreement import Agreement

    exact = replace(config, privacy=replace(config.privacy, name="none"))
    agreement, mask = Agreement.of(exact), head_mask(exact)
    sums = []
    for name in exact.federation.partners:
        data = load_partner(exact, exact.federation.sites[name], name)
        total = update_sum(make_model(exact), data.train, exact, agreement, name)
        sums.append(mask.shared(total))
    return np.stack(sums)


def _print(found: Exposure) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False)
    runs = "1 whole run" if found.runs == 1 else f"{found.runs:,} whole runs"
    console.print(f"An epsilon-limit of {found.limit:g} at delta {found.delta:g} admits "
                  f"{found.rounds:,} rounds like this run's, {runs}; {found.size:,} parameters.")
    table = Table(title="One partner's own update: relative error (cosine) of the best estimate,\n"
                  "by the least_quorum that sites allow", title_justify="left")
    for heading in ("partner", "customers", "its update", "in clips"):
        table.add_column(heading, justify="right" if heading in ("customers", "in clips")
                         else "left")
    for quorum in found.quorums:
        table.add_column(f"quorum {quorum}", justify="right")
    for row in found.rows:
        table.add_row(row.partner, f"{row.customers:,}", row.update, f"{row.norm_clips:.0f}", *(
            f"{estimate.relative_error:.2f} ({estimate.cosine:.2f})"
            for estimate in row.estimates.values()))
    console.print(table)
    if found.alike:
        console.print("The sum of all alone already points the way of each partner's update, at "
                      f"cosines of {min(found.alike):.2f} to {max(found.alike):.2f}, where "
                      "customers are alike: that is the model, and no policy hides it.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
