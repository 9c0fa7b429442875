"""Calls of kubectl: JSON in and out, and errors of one line."""

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bentune.bundle.errors import BentuneError, InputError

Object = dict[str, Any]

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CALL_S = 60
ANSWER_S = 10
FORWARD_S = 30


@dataclass(frozen=True)
class Kubectl:
    """Program kubectl with a context and a namespace, by default its own."""

    context: str | None = None
    namespace: str | None = None
    program: str = "kubectl"

    def where(self) -> tuple[str, str]:
        """Return the names of the context and of the namespace in use."""
        if IN_CLUSTER.is_file() and not self.context and "KUBECONFIG" not in os.environ:
            return "in-cluster", self.namespace or IN_CLUSTER.read_text(encoding="utf-8").strip()
        config = json.loads(self._run("config", "view", "--minify", "-o", "json", check=False) or "{}") or {}
        contexts = config.get("contexts") or [{}]
        return (
            self.context or config.get("current-context") or "none",
            self.namespace or contexts[0].get("context", {}).get("namespace") or "default",
        )

    def answers(self) -> bool:
        """Return true if a cluster answers within ANSWER_S.

        The time is bounded here and not by --request-timeout: with that option kubectl ignores the service account of
        the pod that it runs in, and connects to localhost:8080.
        """
        try:
            return self._call("version", "-o", "json", seconds=ANSWER_S).returncode == 0
        except InputError:
            raise
        except BentuneError:
            return False

    def render(self, overlay: Path) -> tuple[str, list[Object]]:
        """Render an overlay, as text and as objects.

        Raises InputError with the error of kustomize.
        """
        done = self._call("kustomize", str(overlay), bare=True)
        if done.returncode != 0:
            raise InputError(f"{overlay} does not render: {_line(done.stderr)}")
        return done.stdout, [one for one in yaml.safe_load_all(done.stdout) if one]

    def apply(self, overlay: Path) -> list[str]:
        """Apply an overlay and return a line for each object."""
        return self._run("apply", "-k", str(overlay)).splitlines()

    def diff(self, overlay: Path) -> str | None:
        """Return the diff of an apply, or None when the cluster cannot compute it."""
        done = self._call("diff", "-k", str(overlay))
        if done.returncode not in {0, 1}:
            return None
        # Without the annotation of the last applied configuration, one line of JSON that repeats the change.
        return "\n".join(line for line in done.stdout.splitlines() if not line[1:].lstrip().startswith('{"apiVersion"'))

    def get(self, kind: str, name: str) -> Object | None:
        """Read one object; None when there is none of that name."""
        text = self._run("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def having(self, kind: str, labels: Mapping[str, str]) -> list[Object]:
        """Read all objects of a kind with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Object] = json.loads(self._run("get", kind, "-l", selector, "-o", "json"))["items"]
        return items

    def patch(self, kind: str, name: str, patch: Object) -> None:
        """Merge `patch` into one object as an apply does: containers match by name."""
        self._run("patch", kind, name, "--type", "strategic", "-p", json.dumps(patch))

    def undo(self, deployment: str, template: Object) -> None:
        """Return a Deployment to a former pod template.

        `kubectl rollout undo` sends the same patch, but parses the template first: a kubectl older than the cluster, as
        in Debian, would drop fields of newer versions.
        """
        patch = [{"op": "replace", "path": "/spec/template", "value": template}]
        self._run("patch", "deployment", deployment, "--type", "json", "-p", json.dumps(patch))

    @contextlib.contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """Forward a local port to `service/NAME` or `pod/NAME` and yield its address.

        Raises BentuneError when nothing listens in time. A Service is forwarded to one of its pods, always the same.
        """
        command = self._command("port-forward", target, f":{port}", bare=False)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                yield f"http://127.0.0.1:{_forwarded(process)}"
            finally:
                process.terminate()

    def _run(self, *arguments: str, check: bool = True) -> str:
        done = self._call(*arguments)
        if check and done.returncode != 0:
            raise BentuneError(f"`kubectl {' '.join(arguments[:3])}` failed: {_line(done.stderr)}")
        return done.stdout

    def _call(
        self, *arguments: str, bare: bool = False, seconds: float | None = None
    ) -> "subprocess.CompletedProcess[str]":
        command, most = self._command(*arguments, bare=bare), seconds or CALL_S
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=most)
        except subprocess.TimeoutExpired:
            raise BentuneError(f"`kubectl {' '.join(arguments[:3])}` did not answer within {most:g} s") from None

    def _command(self, *arguments: str, bare: bool) -> list[str]:
        if shutil.which(self.program) is None:
            raise InputError(f"{self.program} is not installed; see https://kubernetes.io/docs/tasks/tools")
        options: list[str] = []
        if not bare:
            options += ["--context", self.context] if self.context else []
            options += ["--namespace", self.namespace] if self.namespace else []
        return [self.program, *options, *arguments]


def _line(text: str) -> str:
    """Return the most useful line of an error: the last, after kubectl's warnings."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ")[:500] if lines else "no output"


def _forwarded(process: "subprocess.Popen[bytes]") -> int:
    printed, stream = "", process.stdout
    deadline = time.monotonic() + FORWARD_S
    with selectors.DefaultSelector() as selector:
        if stream:
            selector.register(stream, selectors.EVENT_READ)
        while stream and time.monotonic() < deadline and selector.select(deadline - time.monotonic()):
            # Not by lines: a second line would stay in the reader's buffer, and `select` would not see it.
            part = os.read(stream.fileno(), 4096)
            printed += part.decode("utf-8", "replace")
            if found := re.search(r"^Forwarding from 127\.0\.0\.1:(\d+) ", printed, re.MULTILINE):
                return int(found[1])
            if not part:
                break
    raise BentuneError(f"`kubectl port-forward` opened no port: {_line(printed)}")
