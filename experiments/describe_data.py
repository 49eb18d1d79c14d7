"""``veilsum describe-data``: what a partner shares of its data, and whether partners agree."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conf.schema import Config

_OWN = ("path", "calendars", "newcomer_partner", "newcomer_customers", "newcomer_days",
        "simulated_homes")
"""Settings of a task that are nobody else's business, or a simulation's."""
_CARD = "veilsum data card 1"
_EPILOG = """\
A card holds no row and no count of anybody's data: the settings that all partners must share, the
names of columns and features, public bounds, and a fingerprint of them. Partners
exchange cards, not data, before the first round; `--agree` shows what still differs.

  veilsum describe-data meters.csv task=utility_load --out north.json
  veilsum describe-data --agree north.json south.json west.json

FILE is what lies at this partner's site, of one partner alone; it may lack the partner column.
Snapshots of a retail task that are left empty are counted back from its own last day, and
task.top_categories takes its most frequent categories: both are then part of the card, and public.
Exit code: 0 (with --agree: all agree), 2 otherwise.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum describe-data", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write down how this site prepares its data, for other partners to compare.",
        epilog=_EPILOG)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path,
                        help="the table at this partner's site")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE",
                        help="task and its settings, as in `veilsum simulate`")
    parser.add_argument("--out", type=Path, metavar="CARD", help="write the card as JSON")
    parser.add_argument("--agree", nargs="+", type=Path, metavar="CARD",
                        help="compare the cards of several partners")
    options = parser.parse_intermixed_args(argv)
    if options.agree:
        return _agree(options.agree)
    if options.file is None:
        parser.error("name this site's table, or cards after --agree")
    from experiments.launch import compose_and_run

    return compose_and_run("veilsum describe-data", options.overrides,
                           lambda config: _describe(config, options.file, options.out))


def card(config: Config, file: Path) -> dict[str, Any]:
    """Reads ``file`` as its site does: it belongs to one partner and need not say to whom. Raises
    InvalidConfig, TableError where the table cannot be used."""
    from dataclasses import asdict, replace

    from learning.registry import make_task, prepare
    from learning.tables import read_raw

    columns = read_raw(file).columns
    settled = prepare(replace(config, task=replace(config.task, path=str(file))), file.stem)
    task = make_task(replace(settled, task=replace(settled.task, path=None)))
    task.load(file)  # refuses a table that this task could not read
    shared = {
        "settings": {key: value for key, value in asdict(settled.task).items() if key not in _OWN},
        "seed": config.seed,
        "features": list(task.feature_names),
        "feature_bound": task.feature_bound,
        "shape": asdict(task.shape),
        "loss": repr(task.loss),
        "metric": repr(task.metric),
        "released_bounds": {"loss": task.loss.clip, "metric": task.metric.clip,
                            "update": config.privacy.clip_norm},
    }
    return {"card": _CARD, "columns": sorted(columns), "shared": shared,
            "fingerprint": fingerprint(shared)}


def fingerprint(shared: Mapping[str, Any]) -> str:
    """Equal where, and only where, partners prepare their data alike."""
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def differences(cards: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(dotted name, card's name -> value) of everything shared that is not the same in all."""
    flat = {name: dict(_flat(one["shared"])) for name, one in cards.items()}
    keys = sorted({key for one in flat.values() for key in one})
    found = []
    for key in keys:
        values = {name: one.get(key) for name, one in flat.items()}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            found.append((key, values))
    return found


def cure(key: str, values: Mapping[str, Any]) -> str:
    """An override that would make the partners agree."""
    if key == "settings.categories":
        common = sorted(set.intersection(*(set(value or ()) for value in values.values())))
        listed = ",".join(json.dumps(name) for name in common)
        return f"'task.categories=[{listed}]' (those that all have)"
    if key == "settings.time_zone":
        return ("give all the same task.time_zone, the clock on which everybody's days begin; "
                "homes of several clocks keep theirs if each site writes its local times, with or "
                "without offset, and all leave task.time_zone empty")
    if key.startswith("settings."):
        return f"give all the same task.{key.removeprefix('settings.')}"
    if key == "seed":
        return "give all the same seed"
    return "follows from the settings above, or from another version of veilsum"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            items += _flat(value, f"{prefix}{key}.")
        else:
            items.append((prefix + key, value))
    return items


def _describe(config: Config, file: Path, out: Path | None) -> None:
    from rich.console import Console

    made = card(config, file)
    if out is not None:
        _write(made, out)
    shared, console = made["shared"], Console(highlight=False, markup=False, emoji=False)
    settings, bounds = shared["settings"], shared["released_bounds"]
    console.print(f"Task {settings['name']}; columns of {file.name}: {', '.join(made['columns'])}")
    console.print(f"{len(shared['features'])} kinds of features, each within ±"
                  f"{shared['feature_bound']:g}: {', '.join(shared['features'])}")
    console.print("What leaves this site, encrypted and noised: per round one sum over customers, "
                  f"of which each changes the update by at most {bounds['update']:g}, the metric "
                  f"by {bounds['metric']:.3g} and the loss by {bounds['loss']:g}. No rows.")
    console.print("Settings that every partner must share:")
    for key, value in sorted(settings.items()):
        console.print(f"  task.{key} = {json.dumps(value)}")
    console.print(f"Fingerprint {made['fingerprint']}: compare it with the other partners'.")


def _write(made: Mapping[str, Any], out: Path) -> None:
    """Raises InvalidConfig."""
    from conf.schema import InvalidConfig

    try:
        out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidConfig("--out", f"{out} cannot be written: {error.strerror}") from None


def _agree(paths: Sequence[Path]) -> int:
    from conf.schema import InvalidConfig

    try:
        cards = {path.stem: read_card(path) for path in paths}
        if len(cards) < 2 or len(cards) < len(paths):
            raise InvalidConfig("--agree", "give two or more cards of different names")
    except InvalidConfig as error:
        print(f"veilsum describe-data: {error}", file=sys.stderr)
        return 2
    found = differences(cards)
    if not found:
        print(f"{len(cards)} partners agree: {fingerprint(next(iter(cards.values()))['shared'])}")
        return 0
    for key, values in found:
        print(f"{key} differs: {cure(key, values)}")
        for name, value in values.items():
            text = json.dumps(value)
            print(f"  {name}: {text if len(text) <= 100 else text[:97] + '...'}")
    return 2


def read_card(path: Path) -> dict[str, Any]:
    """Another partner's card. Raises InvalidConfig for anything else."""
    from conf.schema import InvalidConfig

    try:
        made = json.loads(path.read_bytes()[:1_000_000])
    except (OSError, ValueError):
        raise InvalidConfig("--agree", f"{path} is not a card, made with --out") from None
    if not isinstance(made, dict) or made.get("card") != _CARD or not isinstance(
            made.get("shared"), dict):
        raise InvalidConfig("--agree", f"{path} is not a card, made with --out")
    if made.get("fingerprint") != fingerprint(made["shared"]):
        raise InvalidConfig("--agree", f"{path} was changed after it was made")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
