"""A real container registry on this machine, of Debian's package docker-registry."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from programs import require

from rollout.server.server import free_port


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Keeps images below `directory`; yields its host and port, which speak HTTP."""
    program, address = require("docker-registry", "skopeo"), f"127.0.0.1:{free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {"addr": address},
    }
    (directory / "registry.yaml").write_text(yaml.safe_dump(config))
    command = [program, "serve", str(directory / "registry.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://{address}/v2/", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
        process.terminate()
