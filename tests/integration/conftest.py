"""A real deployment on loopback: a SuperLink, SuperNodes and ``flwr run``, each a process.

Everything lives in a temporary folder and dies with the test. The traps that this handles: each
process needs its own ``FLWR_HOME`` (unpacking one bundle twice at once races), ports must be
free, SuperNodes and the SuperLink detach their children from the process group, and ``flwr run``
looks for updates, reports its use and installs dependencies unless told not to.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w

Value = str | int | float | bool
_MARK = "VEILSUM_TEST_FEDERATION"
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class Process:
    """One process and its log."""

    name: str
    log_file: Path
    popen: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Raises RuntimeError with the log when the process ends first or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not get ready:\n{self.log}")
            time.sleep(0.05)


@dataclass
class Federation:
    """A running SuperLink and its SuperNodes."""

    work: Path
    port: int
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    processes: list[Process] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], **variables: str) -> Process:
        """Start a command of the environment that runs the tests; its output goes to a log."""
        folder = self.work / name
        folder.mkdir()
        log_file = folder / "log.txt"
        with log_file.open("wb") as log:
            popen = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                cwd=folder, env=self._environment(folder, variables), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
        process = Process(name, log_file, popen)
        self.processes.append(process)
        return process

    def _environment(self, folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
        # Superexec and the apps are found on PATH, so the tests' own environment comes first.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
        return {**kept, **_QUIET, _MARK: self.mark, "PATH": path,
                "FLWR_HOME": str(folder / "flwr"), **variables}

    def begin(self, app_dir: Path, run_config: Mapping[str, Value]) -> Process:
        """``flwr run``, which follows the run to its end."""
        overrides = self.work / "run_config.toml"
        overrides.write_text(tomli_w.dumps(dict(run_config)))
        command = ["flwr", "run", str(app_dir), "test", "--stream",
                   "--run-config", str(overrides)]
        return self.start(f"run{len(self.processes)}", command,
                          FLWR_HOME=str(self.work / "cli"))

    def kill_server_app(self) -> None:
        """As a power failure would: SIGKILL. Raises AssertionError where none runs."""
        found = [pid for pid in self.remaining()
                 if b"flwr-serverapp" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert found, "no ServerApp runs"
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def run(self, app_dir: Path, run_config: Mapping[str, Value], timeout_s: float = 300.0) -> str:
        """Run the app in ``app_dir`` to its end and return the log of its ServerApp.

        Raises AssertionError with the logs of all processes when the run fails or takes longer.
        """
        cli = self.begin(app_dir, run_config)
        try:
            code = cli.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {timeout_s:g} s\n{self.logs()}") from None
        started = re.search(r"started run (\d+)", cli.log)
        status = self._status(started.group(1)) if code == 0 and started else "not started"
        assert status == "finished:completed", f"the run is {status}\n{self.logs()}"
        return cli.log

    def _status(self, run_id: str) -> str:
        command = ["flwr", "list", "test", "--run-id", run_id, "--format", "json"]
        cli = self.start(f"status{len(self.processes)}", command,
                         FLWR_HOME=str(self.work / "cli"))
        cli.popen.wait(30)
        answer = json.loads(cli.log[cli.log.index("{"):])
        return str(answer["runs"][0]["status"])

    def logs(self) -> str:
        """The ends of all logs, for a failure message."""
        return "\n".join(f"===== {process.name}\n{process.log[-6000:]}"
                         for process in self.processes)

    def stop(self) -> None:
        """End every process of this federation, those included that left its process groups."""
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGTERM)
        deadline = time.monotonic() + 3.0
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
        deadline = time.monotonic() + 10.0
        while (left := self.remaining()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def remaining(self) -> list[int]:
        """Processes that carry this federation's mark. Empty where there is no /proc: there,
        Flower's children end themselves when they lose their parent."""
        mark = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile, or another user's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def start_federation(
    work: Path, nodes: Sequence[Mapping[str, Value]]
) -> Iterator[Federation]:
    """Start a SuperLink and one SuperNode per node config; stop them all at the end."""
    federation = Federation(work, free_port())
    address = f"127.0.0.1:{federation.port}"
    with ExitStack() as stack:
        stack.callback(federation.stop)
        (work / "cli").mkdir()
        (work / "cli" / "config.toml").write_text(tomli_w.dumps({"superlink": {
            "default": "test", "test": {"address": address, "insecure": True}}}))
        link = federation.start("superlink", [
            "flower-superlink", "--insecure", "--host", "127.0.0.1",
            "--port", str(federation.port), "--disable-runtime-dependency-installation"])
        link.wait_until(lambda: _listens(federation.port))
        supernodes = [_start_node(federation, number, config)
                      for number, config in enumerate(nodes)]
        for node in supernodes:
            node.wait_until(lambda node=node: "SuperNode ID:" in node.log)
        yield federation


def _start_node(federation: Federation, number: int, config: Mapping[str, Value]) -> Process:
    # A file, because the command line splits values at quotes and cannot escape them.
    node_config = federation.work / f"node{number}.toml"
    node_config.write_text(tomli_w.dumps(dict(config)))
    return federation.start(f"supernode{number}", [
        "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{federation.port}",
        "--port", str(free_port()), "--node-config", str(node_config)])


@pytest.fixture
def federation(
    tmp_path: Path,
) -> Iterator[Callable[[Sequence[Mapping[str, Value]]], Federation]]:
    """``federation(node_configs).run(app_dir, run_config)`` gives the log of the ServerApp."""
    with ExitStack() as stack:
        def start(nodes: Sequence[Mapping[str, Value]]) -> Federation:
            work = tmp_path / "federation"
            work.mkdir()
            return stack.enter_context(start_federation(work, nodes))

        yield start
