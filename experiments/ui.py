"""``veilsum ui``: the recorded runs in MLflow's own interface, within seconds.

``mlflow ui`` takes most of a minute, because it starts ten processes for features that nobody
needs here; this starts one worker without the job runner. The server has no login, so it listens
on this machine alone unless ``--host`` says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import BinaryIO, NoReturn

from conf.schema import InvalidConfig, TrackingConfig
from server.mlflow_database import sqlite_file
from server.mlflow_store import check_uri, quiet_mlflow, store_uri

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 10.0
_DEFAULT_URI = TrackingConfig().uri


class CannotShow(Exception):
    """Why there is no interface to open; the text says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C. Returns 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    args.tracking_uri = store_uri(args.tracking_uri)
    try:
        _check(args.tracking_uri, args.host, args.port)
        if args.tracking_uri.startswith(("http://", "https://")):
            _announce(args.tracking_uri, browser=not args.no_browser)
            return 0
        _serve(args.tracking_uri, args.host, args.port, args.experiment,
               browser=not args.no_browser)
    except (CannotShow, InvalidConfig) as error:
        print(f"veilsum ui: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="veilsum ui", description="Open the recorded runs.")
    parser.add_argument("--tracking-uri", default=_DEFAULT_URI,
                        help="store of the runs (default: MLFLOW_TRACKING_URI, or else %(default)s "
                        "in this folder)")
    parser.add_argument("--experiment", default=TrackingConfig().experiment,
                        help="experiment to open first (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1",
                        help="default: %(default)s; the server has no login, so anyone who "
                        "reaches another address can read and delete runs")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser


def _check(uri: str, host: str, port: int) -> None:
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise CannotShow(f"there is no {file} yet: run `veilsum simulate` first, or name the "
                         "store with --tracking-uri")
    check_uri(uri)
    if uri.startswith("http"):
        return
    if not 0 < port < 65536:
        raise CannotShow(f"--port {port} is no port number")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotShow(f"cannot listen on {host} port {port} ({error.strerror}); stop what "
                             f"runs there, or choose another with --port {port + 1}") from None


def _serve(uri: str, host: str, port: int, experiment: str, *, browser: bool) -> None:
    base = f"http://{_reachable(host)}:{port}"
    with tempfile.TemporaryFile() as output, _server(uri, host, port, output.fileno()) as server:
        _wait_until_up(server, base, output)
        _announce(base + _page(base, experiment), browser=browser)
        print("Ctrl-C ends it.", flush=True)
        server.wait()
        raise CannotShow("MLflow ended by itself: " + _last_line(output))


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@contextmanager
def _server(uri: str, host: str, port: int, output: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server in a process group of its own. Guarantee: the group has ended on exit."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    server = subprocess.Popen(  # noqa: S603 no shell; arguments are separate
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri,
         "--host", host, "--port", str(port), "--workers", "1"],
        env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        start_new_session=True)
    try:
        yield server
    finally:
        _end_group(server)


def _as_ctrl_c(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _environment() -> dict[str, str]:
    quiet_mlflow()
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _end_group(server: subprocess.Popen[bytes]) -> None:
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, ending)
            server.wait(timeout=_STOP_TIMEOUT_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], base: str, output: BinaryIO) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise CannotShow("MLflow did not start: " + _last_line(output))
        try:
            _get(base + "/health")
            return
        except OSError:
            time.sleep(0.1)
    raise CannotShow(f"MLflow did not answer within {_START_TIMEOUT_S:.0f} s")


def _page(base: str, experiment: str) -> str:
    """The list of runs where the experiment exists, else MLflow's start page, and a word why."""
    query = urllib.parse.urlencode({"experiment_name": experiment})
    try:
        found = json.loads(_get(f"{base}/api/2.0/mlflow/experiments/get-by-name?{query}"))
        return f"/#/experiments/{found['experiment']['experiment_id']}/runs"
    except (OSError, ValueError, KeyError):
        print(f"there is no experiment {experiment!r} here; the start page lists those that are")
        return ""


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 our own server
        return bytes(answer.read())


def _last_line(output: BinaryIO) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def _announce(url: str, *, browser: bool) -> None:
    print(f"MLflow shows the runs at {url}", flush=True)
    if browser and _has_display():
        webbrowser.open(url)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    raise SystemExit(main())
