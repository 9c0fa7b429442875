"""Peers: other servers, each installed in its own environment, started and stopped."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import psutil

from bentune.bundle.errors import BentuneError
from rollout.server.server import free_port

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".bench"
INSTALLED = "installed.txt"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
MODEL_NAME = "classifier"
# Settings of the caller for Bentune or Python must not change a peer.
NOT_INHERITED = ("BENTOML_", "BENTUNE_", "INFINITY_", "PROMETHEUS_", "PYTHON")


@dataclass(frozen=True, slots=True)
class Peer:
    """One server: its installation, start and requests. It runs in the model's directory, on its caller's cores."""

    name: str
    requirements: Path
    program: str  # in the environment's bin
    arguments: Callable[[int], list[str]]  # of the port
    variables: Callable[[Path, int], dict[str, str]]  # of the model's directory and the most tokens of a text
    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    labels: Callable[[Any], list[str]]  # the likeliest label of each text in the JSON answer
    truncates: bool  # if false, a text longer than the model's positions would stop the server: cut it first

    @property
    def environment(self) -> Path:
        """Virtual environment, shared by peers with the same requirements."""
        return ENVIRONMENTS / self.requirements.stem


def _textbook_arguments(port: int) -> list[str]:
    service = ["textbook_service:TextbookClassifier", "--working-dir", str(HERE)]
    return ["serve", *service, "--host", "127.0.0.1", "--port", str(port)]


def _textbook_variables(model: Path, max_tokens: int) -> dict[str, str]:
    return {"TEXTBOOK_MODEL": str(model), "TEXTBOOK_MAX_TOKENS": str(max_tokens)}


def _textbook_labels(answer: Any) -> list[str]:
    return [prediction["label"] for prediction in answer]


def _infinity_arguments(engine: str) -> Callable[[int], list[str]]:
    def arguments(port: int) -> list[str]:
        return [
            # Relative: infinity derives the folder of its fused graph from an absolute path.
            *("v2", "--model-id", ".", "--served-model-name", MODEL_NAME),
            *("--engine", engine, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
            # Its warm-up sends 514 tokens, more than BERT's positions, and its optimum engine does not truncate.
            "--no-model-warmup",
        ]

    return arguments


def _infinity_variables(model: Path, max_tokens: int) -> dict[str, str]:  # noqa: ARG001
    # Its only token limit is `model_max_length` in the model's directory.
    return {"INFINITY_ANONYMOUS_USAGE_STATS": "false"}


def _infinity_body(texts: Sequence[str]) -> dict[str, Any]:
    return {"model": MODEL_NAME, "input": list(texts)}


def _infinity_labels(answer: Any) -> list[str]:
    return [max(scores, key=lambda entry: entry["score"])["label"] for scores in answer["data"]]


def _infinity(engine: str, *, truncates: bool) -> Peer:
    return Peer(
        name=f"infinity-{engine}",
        requirements=HERE / "infinity.txt",
        program="infinity_emb",
        arguments=_infinity_arguments(engine),
        variables=_infinity_variables,
        path="/classify",
        body=_infinity_body,
        labels=_infinity_labels,
        truncates=truncates,
    )


TEXTBOOK = Peer(
    name="textbook",
    requirements=HERE / "textbook.txt",
    program="bentoml",
    arguments=_textbook_arguments,
    variables=_textbook_variables,
    path="/predict",
    body=lambda texts: {"inputs": list(texts)},
    labels=_textbook_labels,
    truncates=True,
)
PEERS = (TEXTBOOK, _infinity("optimum", truncates=False), _infinity("torch", truncates=True))


def install(peers: Sequence[Peer] = PEERS) -> list[Peer]:
    """Install missing or changed peers and return those that can run.

    It prints why other peers cannot run.
    """
    problems: dict[Path, str | None] = {}
    for peer in peers:
        if peer.environment not in problems:
            problems[peer.environment] = _install(peer.requirements, peer.environment)
        if problem := problems[peer.environment]:
            click.echo(f"{peer.name} could not be installed: {problem}", err=True)
    return [peer for peer in peers if problems[peer.environment] is None]


def _install(requirements: Path, environment: Path) -> str | None:
    """Install a peer's packages; return the error as one line, or None.

    None means that the environment matches the file.
    """
    wanted, record = requirements.read_text(encoding="utf-8"), environment / INSTALLED
    if record.is_file() and record.read_text(encoding="utf-8") == wanted:
        return None
    shutil.rmtree(environment, ignore_errors=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "install", "--quiet", "-r", str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exited with {done.returncode}"]
            # pip may end with a hint.
            return ([line for line in lines if line.startswith("ERROR")] or lines)[-1]
    record.write_text(wanted, encoding="utf-8")
    return None


@contextlib.contextmanager
def running(peer: Peer, model: Path, max_tokens: int) -> Iterator[str]:
    """Serve the directory `model` on a free port and yield the address.

    The address is yielded after a first answer. At the end all processes of the server are stopped, and its files are
    removed. Raises BentuneError with the end of its log when it does not answer.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}{peer.path}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(peer.environment / "bin" / peer.program), *peer.arguments(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=model,
            env=server_environment(Path(home)) | peer.variables(model.resolve(), max_tokens),
            start_new_session=True,
        )
        try:
            _wait_until_it_answers(process, url, peer)
            yield url
        except BentuneError as error:
            log.seek(0)
            tail = log.read().decode("utf-8", "replace")[-2000:]
            raise BentuneError(f"{peer.name}: {error}; the end of its log:\n{tail}") from None
        finally:
            _stop(process)


def server_environment(home: Path) -> dict[str, str]:
    """Return the environment of a measured server.

    It is the caller's, with all directories for the server's files in `home`.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(NOT_INHERITED)}
    # BentoML keeps its Prometheus files in its home; infinity is one process and faster without such files.
    places = {name: str(home) for name in ("BENTOML_HOME", "HF_HOME", "INFINITY_HOME")}
    return kept | places | {"BENTOML_DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, peer: Peer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BentuneError(f"exited with {process.returncode} before it answered")
        with contextlib.suppress(httpx.TransportError):
            if httpx.post(url, json=peer.body(["ready?"]), timeout=10).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise BentuneError(f"did not answer within {START_TIMEOUT_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    # BentoML's worker has its own process group: killing the group of the first process would leave it running.
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
