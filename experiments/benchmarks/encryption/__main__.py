"""``python -m experiments.benchmarks.encryption [KEY=VALUE ...]``: see README.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from conf.schema import InvalidConfig
from experiments.benchmarks.encryption.measure import Row, measure
from experiments.benchmarks.encryption.suites import STOCK, SUITES, Setting
from experiments.series import Place

USAGE = """\
python -m experiments.benchmarks.encryption [KEY=VALUE ...]

  parameters=100000,1663370,10000000   sizes of an update
  clients=4,16,64                      cohorts that the parameters are made for
  bits=16,8                            widths of a quantised value
  suites=...                           of """ + ", ".join(SUITES) + """
  repeats=3                            turns that count; medians are taken over them
  out=FILE.json                        one row per suite and setting
  write=FILE.md                        the table, between the lines encryption: begin and end
"""


@dataclass(frozen=True)
class Request:
    parameters: tuple[int, ...] = (100_000, 1_663_370, 10_000_000)
    clients: tuple[int, ...] = (4, 16, 64)
    bits: tuple[int, ...] = (16, 8)
    suites: tuple[str, ...] = SUITES
    repeats: int = 3
    out: Path | None = None
    write: Path | None = None


def parse(argv: Sequence[str]) -> Request:
    """Raises InvalidConfig, by key."""
    given: dict[str, object] = {}
    for argument in argv:
        key, found, text = argument.partition("=")
        if not found or key not in {field.name for field in fields(Request)}:
            raise InvalidConfig(key, "no such key; --help lists them")
        try:
            given[key] = _value(key, text)
        except ValueError:
            raise InvalidConfig(key, f"{text!r} is not a list of whole numbers above 0") from None
    unknown = set(given.get("suites", ())) - set(SUITES)  # type: ignore[call-overload]
    if unknown:
        raise InvalidConfig("suites", f"{', '.join(unknown)} is not one of {', '.join(SUITES)}")
    return Request(**given)  # type: ignore[arg-type]


def _value(key: str, text: str) -> object:
    if key in ("out", "write"):
        return Path(text)
    if key == "suites":
        return tuple(text.split(","))
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1 or (key == "repeats" and len(numbers) > 1):
        raise ValueError
    return numbers[0] if key == "repeats" else numbers


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0
    try:
        request = parse(argv)
        place = Place(request.write, "encryption") if request.write else None
        if place:
            place.check()
    except InvalidConfig as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[Row] = []
    for size in request.parameters:
        for clients in request.clients:
            for bits in request.bits:
                print(f"{size} parameters, {clients} clients, {bits} bits ...", file=sys.stderr,
                      flush=True)
                rows += measure(Setting(size, clients, bits, min(3, clients)), request.suites,
                                request.repeats)
    if request.out:
        request.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    text = table(rows)
    print(text)
    if place:
        place.write(text)
    return 0


def table(rows: Sequence[Row]) -> str:
    """Markdown. CPU milliseconds; in brackets how many times less than the stock suite takes."""
    lines = ["| parameters | clients | bits | suite | B/param up (floor) | client ms | "
             "fold ms a client | open ms | np.add ÷ fold | peak MB |",
             "|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        stock = row.suite == STOCK

        def times(seconds: float, ratio: float, stock: bool = stock) -> str:
            return f"{seconds * 1e3:.0f}" + ("" if stock else f" ({ratio:.1f}x)")

        size = f"{row.bytes_per_parameter_up:.2f}"
        lines.append(
            f"| {row.parameters:,} | {row.clients} | {'float' if stock else row.bits} "
            f"| {row.suite} | {size if stock else f'{size} ({row.floor_bytes_per_parameter:.2f})'} "
            f"| {times(row.client_cpu_s, row.client_ratio)} "
            f"| {times(row.fold_cpu_s_per_client, row.fold_ratio)} "
            f"| {times(row.open_cpu_s, row.open_ratio)} "
            f"| {row.fold_vs_add:.2f} | {row.peak_memory_mb:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
