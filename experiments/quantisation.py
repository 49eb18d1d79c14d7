"""``python -m experiments.quantisation``: what integers of a few bits cost against plain floats."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from conf.schema import Config, InvalidConfig
from experiments.series import Place, whole_numbers, with_run

FLOATS = "float32 in the open"


@dataclass(frozen=True)
class Setting:
    """One row. ``bits``: None for sums of floats that nobody encrypts or rounds."""

    privacy: str
    overrides: tuple[str, ...]
    bits: int | None


SETTINGS = tuple(
    Setting(label, overrides, bits)
    for label, overrides, widths in (
        ("no differential privacy", ("privacy=none",), (None, 16, 12, 10, 8)),
        ("noise shares, ε=3", ("privacy.epsilon=3",), (None, 20, 16)))
    for bits in widths)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.quantisation",
        description="Train the same federation on floats in the open and, encrypted, on integers "
        "of several widths, on the same seeds, and print the final test metric of each.",
        epilog="Other arguments are overrides as in `veilsum simulate`, for example model=mlp or "
        "encryption=shared_key_rlwe.")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2, 3, 4), metavar="S,S")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the quantisation markers of FILE")
    options, overrides = parser.parse_known_args(argv)
    from experiments.launch import compose_and_run

    place = None if options.write is None else Place(options.write, "quantisation")
    try:
        if place is not None:
            place.check()
    except InvalidConfig as error:
        print(f"quantisation: {error}", file=sys.stderr)
        return 2
    rows: list[tuple[Setting, list[float], float]] = []
    for setting in SETTINGS:
        width = () if setting.bits is None else (f"encryption.bits={setting.bits}",)
        code = compose_and_run(
            "quantisation", [*setting.overrides, *width, *overrides],
            lambda config, setting=setting: rows.append(
                (setting, *_metrics(config, setting, options.seeds))))
        if code:
            return code
    text = table(rows)
    print(text)
    if place is not None:
        place.write(text)
    return 0


def _metrics(config: Config, setting: Setting, seeds: tuple[int, ...]
             ) -> tuple[list[float], float]:
    """The exact test metric over all partners, per seed, and bytes per parameter and upload."""
    from experiments.simulate import simulate

    if setting.bits is None:
        return [train_on_floats(replace(config, seed=seed)) for seed in seeds], 4.0
    named = replace(config, tracking=replace(config.tracking, experiment="veilsum-quantisation"))
    results = [simulate(with_run(named, f"{config.privacy.name}-{setting.bits}bits", seed))
               for seed in seeds]
    return ([next(row.federated.value for row in result.comparisons if row.partner == "all")
             for result in results], results[0].upload_bytes_per_parameter)


def train_on_floats(config: Config) -> float:
    """The exact test metric over all partners of the run without integers and ciphers."""
    from experiments.in_the_open import Case

    case = Case.of(config)
    model = case.train(np.random.default_rng())
    return case.value(lambda _: model, "test")


def table(rows: list[tuple[Setting, list[float], float]]) -> str:
    """Markdown. The spread is over seeds, which change split, start and noise."""
    count = len(rows[0][1])
    lines = [f"| privacy | values | B/param up | test metric, mean of {count} seeds | "
             "spread over seeds | difference to floats, same seeds |",
             "|---|---|--:|--:|--:|--:|"]
    floats: dict[str, list[float]] = {}
    for setting, found, size in rows:
        if setting.bits is None:
            floats[setting.privacy] = found
        differences = [one - other for one, other in
                       zip(found, floats[setting.privacy], strict=True)]
        spread = stdev(found) if count > 1 else math.nan
        between = stdev(differences) / math.sqrt(count) if count > 1 else math.nan
        label = FLOATS if setting.bits is None else f"{setting.bits} bits, encrypted"
        gap = "" if setting.bits is None else f"{mean(differences):+.4f} ± {2 * between:.4f}"
        lines.append(f"| {setting.privacy} | {label} | {size:.1f} | {mean(found):.4f} | "
                     f"{spread:.4f} | {gap} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
