"""A Bento is started, waited for and stopped; what does not start says why."""

import socket

import httpx
import pytest

from bentune.bundle.errors import BentuneError, InputError
from rollout.server.server import free_port, require_free_port, running, starting


def test_it_is_ready_inside_and_gone_after(tiny_tag: str) -> None:
    with starting(tiny_tag) as started:
        assert httpx.get(f"{started.url}/readyz").status_code == 200
        memory = started.peak_memory_bytes()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{started.url}/readyz", timeout=2)
    assert 0.5 < started.startup_s < 120
    assert memory is not None
    assert 150e6 < memory < 1e9, "of both processes of BentoML"
    assert started.peak_memory_bytes() is None


def test_a_server_that_cannot_start_shows_its_log() -> None:
    message = r"exited with 1 before it was ready; the end of its log:\n[\s\S]*nowhere"
    with pytest.raises(BentuneError, match=message), running("nowhere:1"):
        pytest.fail("it is not there")


def test_free_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_a_busy_port_is_an_input_error() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1:{port} cannot be listened on \(Address already in use\)"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", free_port())
