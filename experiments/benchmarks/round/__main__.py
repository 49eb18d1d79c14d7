"""``python -m experiments.benchmarks.round``: see README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from conf.schema import InvalidConfig
from experiments.benchmarks.round import workload
from experiments.benchmarks.round.measure import Times, measure
from experiments.benchmarks.round.stopwatch import PARTS
from experiments.series import Place
from server.figure_style import legend_above, titled_axes

HERE = Path(__file__).parent
SUITES = ("plaintext", "shared_key", "shared_key_rlwe")
TARGET_RATIO = 1.25
_COLORS = ("#BBBBBB", "#88CCEE", "#332288", "#0072B2", "#DDCC77", "#999933", "#D55E00", "#CC6677",
           "#117733")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.round",
        description="Times rounds with encryption against rounds without, in turns.")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each suite (default 5)")
    parser.add_argument("--bits", type=int, default=16, help="encryption.bits (default 16)")
    parser.add_argument("--write", action="store_true", help="put table and figure into README.md")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    place = Place(HERE / "README.md", "round")
    torch.set_num_threads(1)  # the grid's workers are the threads
    try:
        place.check()
        with tempfile.TemporaryDirectory(prefix="veilsum-round-") as folder:
            times = measure(SUITES, options.repeats, options.bits, Path(folder))
    except InvalidConfig as error:
        print(error, file=sys.stderr)
        return 2
    text = table(times, options.repeats, options.bits)
    print(text)
    if options.write:
        place.write(text)
        figure(times).savefig(HERE / "round.svg", metadata={"Date": None})
    return 0


def table(times: dict[str, Times], repeats: int, bits: int) -> str:
    """Markdown: wall time, ratio, bytes, and what encryption adds for each client."""
    plain = times["plaintext"]
    lines = [
        f"{workload.CLIENTS} clients x {workload.CUSTOMERS} customers x {workload.EXAMPLES} "
        f"examples, {plain.parameters:,} parameters, {bits} bits, 2 clients at a time, median of "
        f"{repeats} rounds of each suite in turns:", "",
        "| suite | round, wall s (least to most) | over plaintext | goal "
        f"{TARGET_RATIO} | MB sent by a client | added processor s, client | at the server "
        "| at the opener |",
        "|---|--:|--:|---|--:|--:|--:|--:|"]
    for suite, found in times.items():
        ratio = found.median_s / plain.median_s
        added = {label: found.part_s(label) - plain.part_s(label) for label, _ in PARTS}
        client = sum(added[label] for label in ("tags", "encrypt", "store reply, ledger"))
        lines.append(
            f"| {suite} | {found.median_s:.1f} ({min(found.wall_s):.1f} to "
            f"{max(found.wall_s):.1f}) | {ratio:.2f} | "
            f"{'met' if ratio <= TARGET_RATIO else 'missed'} | {found.upload_bytes / 1e6:.1f} | "
            f"{client / workload.CLIENTS:.2f} | {added['fold']:.2f} | {added['open']:.2f} |")
    lines += ["", "Processor seconds of a round, all clients and the server together, median:", "",
              "| part | " + " | ".join(times) + " |", "|---|" + "--:|" * len(times)]
    lines += [f"| {label} | " + " | ".join(f"{found.part_s(label):.2f}"
                                            for found in times.values()) + " |"
              for label, _ in PARTS]
    return "\n".join(lines)


def figure(times: dict[str, Times]) -> Figure:
    """One bar a suite, its parts in the order of a round."""
    drawn, axes = titled_axes("Where the time of a round goes", height=4.2)
    starts = dict.fromkeys(times, 0.0)
    for (label, _), color in zip(PARTS, _COLORS, strict=True):
        widths = [found.part_s(label) for found in times.values()]
        axes.barh(list(times), widths, left=list(starts.values()), color=color, label=label)
        starts = {suite: start + width
                  for (suite, start), width in zip(starts.items(), widths, strict=True)}
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"processor seconds of one round, {workload.CLIENTS} clients and the server")
    legend_above(axes, columns=5)
    drawn.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.95 / 4.2))
    return drawn


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
