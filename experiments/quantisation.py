"""``python -m experiments.quantisation``: what integers of a few bits cost against plain floats."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from conf.schema import Config, InvalidConfig
from experiments.series import Place, whole_numbers, with_run

if TYPE_CHECKING:
    from experiments.in_the_open import Parts
    from privacy.regions import Region

FLOATS = "float32 in the open"
LARGE = 1_660_000
"""Parameters of the model that bytes are given for in the second table; the block of a small one
is not full."""


@dataclass(frozen=True)
class Setting:
    """One row. bits: None for sums of floats that nobody encrypts or rounds. in_the_open: the
    integers of a run, added without a cipher. own_range: each round is rounded to the range of its
    own largest value, which nobody knows beforehand: the best that ranges learnt from earlier
    rounds could be."""

    privacy: str
    overrides: tuple[str, ...]
    bits: int | None
    feedback: bool = False
    own_range: bool = False
    in_the_open: bool = False

    @property
    def label(self) -> str:
        if self.bits is None:
            return FLOATS
        words = (f"{self.bits} bits", "each round's own range" if self.own_range else "",
                 "feedback" if self.feedback else "", "" if self.in_the_open else "encrypted")
        return ", ".join(word for word in words if word)


SETTINGS = tuple(
    Setting(label, overrides, bits)
    for label, overrides, widths in (
        ("no differential privacy", ("privacy=none",), (None, 16, 12, 10, 8)),
        ("noise shares, ε=3", ("privacy.epsilon=3",), (None, 20, 16)))
    for bits in widths)
IN_THE_OPEN = tuple(
    Setting(label, overrides, bits, feedback, own_range, in_the_open=True)
    for label, overrides in (("no differential privacy", ("privacy=none",)),
                             ("local DP, ε=3", ("privacy=local_dp",)))
    for bits, feedback, own_range in (
        (None, False, False), (16, False, False), (8, False, False), (6, False, False),
        (4, False, False), (8, True, False), (6, True, False), (4, True, False),
        (4, False, True), (4, True, True)))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.quantisation",
        description="Train the same federation on floats in the open and, encrypted, on integers "
        "of several widths, on the same seeds, and print the final test metric of each. With "
        "--in-the-open, on the integers of fewer bits, with and without feedback, and no cipher: "
        "it would change no bit of the model.",
        epilog="Other arguments are overrides as in `veilsum simulate`, for example model=mlp or "
        "encryption=shared_key_rlwe.")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2, 3, 4), metavar="S,S")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the quantisation markers of FILE")
    parser.add_argument("--in-the-open", action="store_true", help="the table of few bits")
    options, overrides = parser.parse_known_args(argv)
    from experiments.launch import compose_and_run

    name = "quantisation in the open" if options.in_the_open else "quantisation"
    place = None if options.write is None else Place(options.write, name)
    try:
        if place is not None:
            place.check()
    except InvalidConfig as error:
        print(f"quantisation: {error}", file=sys.stderr)
        return 2
    rows: list[tuple[Setting, list[float], float]] = []
    for setting in IN_THE_OPEN if options.in_the_open else SETTINGS:
        width = (() if setting.bits is None or setting.in_the_open
                 else (f"encryption.bits={setting.bits}",))
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
    """The exact test metric over all partners, per seed, and bytes per parameter and upload.
    Raises InvalidConfig."""
    if config.model.head != "shared":
        raise InvalidConfig("model.head", "this study trains shared models only; drop it")
    if setting.bits is None or setting.in_the_open:
        found = [train_in_the_open(replace(config, seed=seed), setting) for seed in seeds]
        return [value for value, _ in found], found[0][1]
    from experiments.simulate import simulate

    named = replace(config, tracking=replace(config.tracking, experiment="veilsum-quantisation"))
    results = [simulate(with_run(named, f"{config.privacy.name}-{setting.bits}bits", seed))
               for seed in seeds]
    return ([next(row.federated.value for row in result.comparisons if row.partner == "all")
             for result in results], results[0].upload_bytes_per_parameter)


def train_in_the_open(config: Config, setting: Setting) -> tuple[float, float]:
    """The run that the protocol stands for, without it: the exact test metric over all partners,
    and the bytes per parameter of a message with ``LARGE`` values as ``setting`` says."""
    from experiments.in_the_open import Case
    from strategies.agreement import Agreement

    case = Case.of(config)
    noise = np.random.default_rng()
    if setting.bits is None:
        model, size = case.train(noise), 4.0
    else:
        # Not checked: a run refuses few bits without feedback.
        few = replace(config.encryption, bits=setting.bits, feedback=setting.feedback)
        plan = Agreement.of(replace(case.config, encryption=few)).training
        model = case.train(noise, rounded(plan.region("update"), setting))
        size = _upload_bytes(few.name, setting.bits, len(case.datas)) / LARGE
    return case.value(lambda _: model, "test"), size


def rounded(region: Region, setting: Setting) -> Callable[[Parts], Parts]:
    """(partners, d) -> what the integers of ``region`` say of it; no noise is added to it."""
    from privacy.noise import NoiseSource

    left = np.zeros((1, region.size))

    def on_the_way(parts: Parts) -> Parts:
        nonlocal left
        grid = region
        if setting.own_range:
            largest = float(np.abs(parts).max())
            grid = replace(region, step=largest / region.clamp_steps)
        wanted = parts + left
        sent = np.array([grid.quantise(part, NoiseSource()) for part in wanted])
        if setting.feedback:
            left = np.array([grid.left_over(*pair) for pair in zip(wanted, sent, strict=True)])
        return sent * grid.step

    return on_the_way


def _upload_bytes(suite: str, bits: int, partners: int) -> int:
    """Of one partner's message with ``LARGE`` values."""
    from encryption.control import ControlLayout
    from encryption.parameters import choose_parameters
    from encryption.types import RoundId
    from keyholder.keys import SharedKey
    from keyholder.sealer import Sealer

    parameters = choose_parameters(suite, partners, bits)
    sealer = Sealer(SharedKey.generate(parameters), ControlLayout(LARGE, partners, parameters), 0)
    blocks = sealer.seal(np.zeros(LARGE, np.int64), RoundId("size", 1))
    return sum(len(block) for block in blocks)


def table(rows: list[tuple[Setting, list[float], float]]) -> str:
    """Markdown. The spread is over seeds, which change split, start and noise."""
    count = len(rows[0][1])
    digits = ".2f" if rows[-1][0].in_the_open else ".1f"
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
        gap = "" if setting.bits is None else f"{mean(differences):+.4f} ± {2 * between:.4f}"
        lines.append(f"| {setting.privacy} | {setting.label} | {size:{digits}} | "
                     f"{mean(found):.4f} | {spread:.4f} | {gap} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
