"""The empty endpoints: each answers, and the table compares them with the barest."""

import ast

import httpx
import pytest

from benchmarks import endpoint
from benchmarks.endpoint import VARIANTS, Cost, Endpoint, table_of


def test_costs_are_compared_with_the_first() -> None:
    costs = [
        Cost(server=name, requests_per_s=1000, cpu_ms=cpu_ms, loop_cpu_ms=cpu_ms)
        for name, cpu_ms in (("bare", 0.05), ("full", 0.2))
    ]
    table = table_of(Endpoint(seconds=1, costs=costs))
    assert list(table.columns[-1].cells) == ["1.00", "4.00"]


def test_the_variants_are_those_of_the_service() -> None:
    module = ast.parse((endpoint.HERE / "empty_service.py").read_text())
    [table] = [node.value for node in module.body if isinstance(node, ast.AnnAssign)][:1]
    assert tuple(ast.literal_eval(table)) == VARIANTS


@pytest.mark.parametrize("started", [endpoint._bare, lambda: endpoint._empty(VARIANTS[-1])])
def test_answers_a_constant(started) -> None:
    with started() as (target, worker):
        answer = httpx.post(target.url + target.path, json={"inputs": "a text"})
        assert (answer.status_code, answer.json()) == (200, [{"score": 1.0, "label": "constant"}])
        assert worker.rss_mb > 10
