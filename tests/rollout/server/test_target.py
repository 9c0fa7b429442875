"""A target is an address or a Bento; what is neither is refused."""

import pytest

from bentune.bundle.errors import InputError
from rollout.server.target import serving


@pytest.mark.parametrize(
    ("address", "url", "path"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1", "/predict"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1", "/predict"),
        ("http://[::1]:1/v1/classify", "http://[::1]:1", "/v1/classify"),
    ],
)
def test_an_address_may_have_a_path(address: str, url: str, path: str) -> None:
    with serving(address, 250) as served:
        assert (served.target.url, served.target.path, served.info) == (url, path, None)
        assert served.target.headers == {"X-Request-Timeout-Ms": "250"}
        assert served.target.timeout_s == pytest.approx(1.25)
        assert served.local


@pytest.mark.parametrize(
    "address", ["ftp://x", "http://", "http://x:99999", "http://x:0", "http://x/?a=1", "http://u:p@x", "http://[::1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address of a server"), serving(address, 1):
        pass


def test_an_unknown_bento_is_refused() -> None:
    with pytest.raises(InputError, match="nowhere is not in the BentoML store"), serving("nowhere", 1):
        pass


def test_two_servers_of_one_bento_keep_their_metrics_apart(tiny_tag: str) -> None:
    """Servers of one BentoML home empty each other's metrics when they start."""
    from rollout.load.generator import Body, closed_loop, run
    from rollout.server.scrape import read_metrics

    with serving(tiny_tag, 5000) as first:
        run(closed_loop(first.target, [Body(b'{"inputs": "the cat"}')], clients=1, seconds=10, requests=3))
        with serving(tiny_tag, 5000) as second:
            counted = [read_metrics(served.target.url) for served in (first, second)]
    assert first.info is not None
    assert first.info["digest"]
    assert [reading.values["bentune_batch_requests_sum"] if reading else None for reading in counted] == [3.0, 0.0]
