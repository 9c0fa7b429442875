"""Server process of a built Bento: start, readiness and stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from bentune.bundle.errors import BentuneError, InputError

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


def serve_command(tag: str, host: str, port: int) -> list[str]:
    """Return the command to serve a Bento in production, with BentoML's drain bounded."""
    return [
        sys.executable,
        *("-m", "bentoml", "serve", tag),
        *("--host", host, "--port", str(port), "--timeout-graceful-shutdown", str(int(STOP_TIMEOUT_S))),
    ]


def require_free_port(host: str, port: int) -> None:
    """Raise InputError when `host`:`port` cannot be listened on."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror}); give another --host or --port"
        ) from None


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Started:
    """Server that was started here: its address, and the seconds from its start until it was ready."""

    url: str
    pid: int
    startup_s: float

    def peak_memory_bytes(self) -> int | None:
        """Sum the peaks of its processes' resident memory; None where /proc lacks them.

        Shared pages count in each process, so that a memory limit of this size is not too low.
        """
        parents, peaks = {}, {}
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it is gone
                fields = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
                pid = int(status.parent.name)
                parents[pid] = int(fields["PPid"])
                peaks[pid] = int(fields.get("VmHWM", "0 kB").split()[0]) * 1024
        # Workers have their own sessions, so that they are found by their ancestors, not by a process group.
        return sum(peak for pid, peak in peaks.items() if self.pid in _ancestors(pid, parents)) or None


@contextlib.contextmanager
def running(
    tag: str, *, cwd: Path | None = None, env: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[str]:
    """Serve `tag` as `starting` does, and yield its address."""
    with starting(tag, cwd=cwd, env=env, log=log) as started:
        yield started.url


@contextlib.contextmanager
def starting(
    tag: str, *, cwd: Path | None = None, env: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[Started]:
    """Serve `tag` on a free port of this machine, yield it once ready, then stop it.

    The server's output goes to the file `log`, if given. Raises BentuneError with the end of the output when the server
    does not become ready.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("w+b") if log else tempfile.TemporaryFile() as printed:
        began = time.monotonic()
        process = subprocess.Popen(
            serve_command(tag, "127.0.0.1", port),
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=os.environ | {"BENTOML_DO_NOT_TRACK": "true"} | (env or {}),
            start_new_session=True,
        )
        try:
            try:
                _wait_until_ready(process, url)
            except BentuneError as error:
                printed.seek(0)
                tail = printed.read().decode("utf-8", "replace")[-2000:]
                raise BentuneError(f"{error}; the end of its log:\n{tail}") from None
            yield Started(url, process.pid, time.monotonic() - began)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BentuneError(f"the server exited with {process.returncode} before it was ready")
        # While the model loads, the port is bound, but the answer is late.
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise BentuneError(f"the server was not ready after {START_TIMEOUT_S:.0f} s")


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """Yield `pid`, its parent, and so on."""
    while pid:
        yield pid
        pid = parents.get(pid, 0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
