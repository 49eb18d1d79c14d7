"""``python -m experiments.widths``: bits and bytes of a value, for partners of any size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from conf.schema import Config, InvalidConfig
from experiments.series import Place

SIZES = (10, 1_000, 100_000, 1_000_000)
PARTNERS = (4, 100)
MODES = ("noise_shares", "local_dp", "none")
CIPHERS = ("shared_key", "shared_key_rlwe")


@dataclass(frozen=True)
class Row:
    """bits: of a value of the update; metric_bits: of the widest metric's. value_bytes: with each
    of CIPHERS, of one more value in a large update."""

    partners: int
    customers: int
    mode: str
    bits: int
    metric_bits: int
    value_bytes: tuple[float, ...]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.widths",
        description="What width the plan takes, with the default task, and what a value weighs.")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the lines of FILE that are marked `widths`")
    options = parser.parse_args(argv)
    place = None if options.write is None else Place(options.write, "widths")
    try:
        if place is not None:
            place.check()
    except InvalidConfig as error:
        print(f"widths: {error}", file=sys.stderr)
        return 2
    text = table(list(rows()))
    print(text)
    if place is not None:
        place.write(text)
    return 0


def rows() -> Iterator[Row]:
    from experiments.in_the_open import composed
    from learning.registry import prepare

    for mode in MODES:
        config = prepare(composed(f"privacy={mode}"))
        for partners in PARTNERS:
            for customers in SIZES:
                yield row(config, partners, customers)


def row(config: Config, partners: int, customers: int) -> Row:
    """Of partners of one size."""
    from strategies.agreement import Agreement

    names = [f"partner {place + 1}" for place in range(partners)]
    sized = replace(config, federation=replace(
        config.federation, partners=names, customers=dict.fromkeys(names, customers)))
    found = [Agreement.of(replace(sized, encryption=replace(config.encryption, name=cipher)))
             for cipher in CIPHERS]
    plans = (found[0].training, found[0].test)
    return Row(partners, customers, config.privacy.name, found[0].training.regions[0].bits,
               max(region.bits for plan in plans for region in plan.regions),
               tuple(one.parameters.bytes_per_value for one in found))


def table(found: list[Row]) -> str:
    """Markdown."""
    lines = ["| privacy | partners | customers of the largest | bits of a value | of a metric's | "
             + " | ".join(f"bytes, {cipher}" for cipher in CIPHERS) + " |",
             "|---|--:|--:|--:|--:|" + "--:|" * len(CIPHERS)]
    for one in found:
        sizes = " | ".join(f"{size:.2f}" for size in one.value_bytes)
        lines.append(f"| {one.mode} | {one.partners} | {one.customers:,} | {one.bits} | "
                     f"{one.metric_bits} | {sizes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
