"""Run a Hydra application as a verb: clear messages instead of tracebacks, exit codes."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from conf.compose import CONFIG_DIR, from_hydra
from conf.schema import Config, InvalidConfig
from experiments.stopping import exit_code


def compose_and_run(program: str, argv: list[str], work: Callable[[Config], object],
                    around: AbstractContextManager[object] | None = None) -> int:
    """Compose the configuration from ``argv`` and call ``work`` once, or once per point of a
    ``-m`` sweep, all within ``around``. Returns the exit code: 0, 1 the run failed, 2 wrong
    input, 130 interrupted, 143 terminated."""
    ConfigStore.instance().store(name="schema", node=asdict(Config()))

    def composed(config: DictConfig) -> None:
        try:
            check_optional(HydraConfig.get().overrides.task)
            work(from_hydra(config))
        except Exception as error:
            # Hydra would print a line of its own before an Exception reaches us.
            raise Stopped(error) from error

    application = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR),
                             config_name="config")(composed)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise here instead of printing and exiting with 1
    saved, sys.argv = sys.argv, [program, *_flags_first(argv)]
    try:
        with around or nullcontext():
            application()
    except KeyboardInterrupt as stopped:
        print("\nstopped; the MLflow run is marked as killed (with federation.folder the same "
              "command goes on with it)", file=sys.stderr)
        return exit_code(stopped)
    except SystemExit as ended:  # --help
        return int(ended.code or 0)
    except HydraException as error:
        print(f"{program}: {_explain(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        return _report(program, stopped.cause)
    except Exception as error:  # of ``around``
        return _report(program, error)
    finally:
        sys.argv = saved
    return 0


def _flags_first(argv: Sequence[str]) -> list[str]:
    """Hydra takes no override before a flag: KEY=VALUE -m KEY=VALUE."""
    last = [text for text in argv
            if not text.startswith("-") and ("=" in text or text.startswith("~"))]
    return [text for text in argv if text not in last] + last


def check_optional(overrides: Iterable[str]) -> None:
    """Raises InvalidConfig for a name that a group of conf/tuned lacks: they are optional, since
    not every task has one, so Hydra would take any name for none."""
    for text in overrides:
        group, _, name = text.lstrip("+").partition("=")
        if group.split("/")[0] == "tuned" and name not in ("", *_options(group)):
            raise InvalidConfig(group, f"has no {name!r}; there are {', '.join(_options(group))}. "
                                f"Left out, it follows the task; ~{group}: nothing tuned")


def _options(group: str) -> list[str]:
    """Of a group of the configuration, sorted."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


class Stopped(BaseException):
    """Carries an error of the run past Hydra."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _report(program: str, error: Exception) -> int:
    from server.recorded import NoSuchRun
    from server.tracking import TrackingFailed
    from strategies.cohort import KeysDiffer, TooFewUpdates
    from strategies.fedavg import OpeningFailed

    if isinstance(error, HydraException):  # of another point of a sweep
        print(f"{program}: {_explain(error)}", file=sys.stderr)
        return 2
    if isinstance(error, ValueError) and "Config group override" in str(error):
        print(f"{program}: {error}; a group is left out by ~GROUP", file=sys.stderr)
        return 2
    if isinstance(error, ValueError) and str(error).startswith(("Only one of --", "The --")):
        print(f"{program}: {error}", file=sys.stderr)  # of flags, as -m with --cfg
        return 2
    if not isinstance(error, InvalidConfig | TooFewUpdates | KeysDiffer | OpeningFailed
                      | NoSuchRun | TrackingFailed):
        raise error
    print(f"{program}: {error}", file=sys.stderr)
    return 2 if isinstance(error, InvalidConfig | NoSuchRun) else 1


def _explain(error: Exception) -> str:
    text = str(error).strip().split("\nConfig search path:")[0]
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is None:
        return text.replace("\n", "\n  ")
    key = unknown.group(1)
    keys = _keys(asdict(Config()))
    for table in (name for name, value in keys.items() if value == {}):
        if key == table or key.startswith(f"{table}."):
            return f"{table}: is a table: write '+{table}.NAME=VALUE' for each entry"
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{key}: no such key.{hint} `veilsum simulate --help` lists them."


def _keys(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Dotted name -> what it holds if nothing is said."""
    keys: dict[str, object] = {}
    for name, value in tree.items():
        keys[prefix + name] = value
        if isinstance(value, dict):
            keys |= _keys(value, f"{prefix}{name}.")
    return keys
