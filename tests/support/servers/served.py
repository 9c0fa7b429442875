"""Servers of changed bundles: what tests that talk HTTP to a real process share."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60.0
SLOW_WORD = "[MASK]"


@dataclass
class Server:
    """A server in a process of its own, and what it printed."""

    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def predict(self, inputs: Any, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        return self.client.post("/predict", json={"inputs": inputs} | more, headers=headers)

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def metric(self, name: str, /, **labels: str) -> float:
        """The value of one series; 0 when it is not there."""
        page = self.client.get("/metrics")
        if page.status_code != 200:
            # A scrape that meets BentoML while it makes the file of a metric (at the first request) is answered 500.
            page = self.client.get("/metrics")
        assert page.status_code == 200, self.printed()[-3000:]
        for family in text_string_to_metric_families(page.text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once `condition` holds; the server must live that long."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            # While the model loads, the port is bound and the answer is late.
            with contextlib.suppress(httpx.TransportError):
                if condition():
                    return
            time.sleep(0.02)
        pytest.fail(f"waited in vain until {what}; the log:\n{self.printed()[-3000:]}")

    def until_status(self, path: str, status: int) -> None:
        self.until(lambda: self.client.get(path, timeout=2).status_code == status, f"{path} answers {status}")


def own_home(directory: Path) -> dict[str, str]:
    """Return an environment with the same stores and another place for metrics.

    BentoML mixes the metrics of one home.
    """
    home = directory / "home"
    home.mkdir()
    for store in ("models", "bentos"):
        (home / store).symlink_to(Path(os.environ["BENTOML_HOME"]) / store)
    return {"BENTOML_HOME": str(home)}


@contextlib.contextmanager
def started(
    directory: Path, what: str, *arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Serve `what`, a Bento's tag or ".", for as long as the context lasts.

    The server need not become ready.
    """
    from rollout.server.server import free_port, serve_command

    port = free_port()
    home = own_home(directory)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*serve_command(what, "127.0.0.1", port), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=os.environ | home | (env or {}),
        )
        server = Server(f"http://127.0.0.1:{port}", directory / "log", process)
        try:
            yield server
        finally:
            server.client.close()
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def storing(tiny_bundle: Path) -> Iterator[Callable[..., str]]:
    """Yield a function that stores changed copies of the tiny bundle.

    It stores each under another name and returns the tag. All are deleted at the end.
    """
    import bentoml

    from bentune.bundle.manifest import MODULE, open_bundle, seal

    tags: list[str] = []

    def store(
        name: str,
        change: Callable[[Path], object] = lambda _: None,
        *,
        task: str = "text-classification",
        version: str = "1",
        **manifest: Any,
    ) -> str:
        tag = f"{name}:{version}"
        with bentoml.models.create(tag, module=MODULE, labels={"task": task}) as stored:
            root = Path(stored.path)
            shutil.copytree(tiny_bundle, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.yaml"))
            change(root)
            original = open_bundle(tiny_bundle).manifest
            seal(root, original.model_copy(update={"name": name, "version": version} | manifest))
        tags.append(tag)
        return tag

    try:
        yield store
    finally:
        for tag in tags:
            bentoml.models.delete(tag)


def slow(root: Path) -> None:
    """Change a bundle so that it is slow on SLOW_WORD.

    It gets one slot, with nothing formed ahead, and keeps the tiny model's scores.
    """
    tokenizer = json.loads((root / "processor/tokenizer.json").read_text())
    make_slow(root / "model/fp32.onnx", tokenizer["model"]["vocab"][SLOW_WORD])
    (root / "plan.json").write_text(json.dumps({"slots": 1, "threads": 1, "token_budget": 1000}))


def make_slow(file: Path, token: int, *, rounds: int = 50, size: int = 512) -> None:
    """Let the graph multiply matrices `rounds` times for each `token` in its inputs.

    That takes about 50 ms on one core.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    graph = model.graph
    producer = next(node for node in graph.node if "logits" in node.output)
    producer.output[list(producer.output).index("logits")] = "fast_logits"
    for name, value in {
        "slow_token": np.int64(token),
        "slow_rounds": np.int64(rounds),
        "slow_matrix": np.eye(size, dtype=np.float32),
        "slow_true": np.bool_(True),
        "slow_zero": np.float32(0),
    }.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("MatMul", ["held", "slow_matrix"], ["held_out"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    graph.node.extend(
        [
            helper.make_node("Equal", ["input_ids", "slow_token"], ["slow_hits"]),
            helper.make_node("Cast", ["slow_hits"], ["slow_counted"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["slow_counted"], ["slow_count"], keepdims=0),
            helper.make_node("Mul", ["slow_count", "slow_rounds"], ["slow_trips"]),
            helper.make_node("Loop", ["slow_trips", "slow_true", "slow_matrix"], ["slow_done"], body=body),
            helper.make_node("ReduceSum", ["slow_done"], ["slow_sum"], keepdims=0),
            helper.make_node("Mul", ["slow_sum", "slow_zero"], ["slow_nothing"]),
            helper.make_node("Add", ["fast_logits", "slow_nothing"], ["logits"]),
        ]
    )
    onnx.checker.check_model(model)
    onnx.save(model, file)
