"""Commands that must succeed, and a running container as the tests see it."""

import json
import subprocess
import time
from dataclasses import dataclass

import httpx
import pytest

PATIENCE_S = 90.0


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done


@dataclass
class Container:
    """A container that runs, and where its server is asked."""

    name: str
    url: str

    def predict(self, inputs: object) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json={"inputs": inputs}, timeout=PATIENCE_S)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE_S)

    def sh(self, command: str) -> subprocess.CompletedProcess[str]:
        return run("podman", "exec", self.name, "sh", "-c", command, check=False)

    def state(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(run("podman", "inspect", self.name).stdout)[0]["State"]
        return found

    def logs(self) -> str:
        done = run("podman", "logs", self.name)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        run("podman", "stop", "--time", "60", self.name)
        return int(str(self.state()["ExitCode"]))

    def until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.state()["Running"]:
            try:
                if self.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"not ready; the log:\n{self.logs()[-4000:]}")
