"""Without a network a hub name fails at once, and what is in the cache still works."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import reset_sessions

from training.sources import hub


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "TIMEOUT_S", 0.2)
        reset_sessions()
        hub.offline.cache_clear()
        yield
    hub.offline.cache_clear()


def test_a_hub_that_does_not_answer_is_given_up_soon_and_asked_once(silent_hub: None) -> None:
    start = time.monotonic()
    assert hub.offline()
    assert 0.2 <= time.monotonic() - start < 2
    start = time.monotonic()
    assert hub.offline()
    assert time.monotonic() - start < 0.1
    assert "cannot be reached" in hub.why_not()


def test_the_setting_of_the_hubs_own_library_is_honoured(silent_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    assert hub.offline()
    assert time.monotonic() - start < 0.1


def test_a_hub_that_answers_is_not_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import http.server
    import threading

    handler = http.server.BaseHTTPRequestHandler  # answers 501 to everything, which is an answer
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        reset_sessions()
        hub.offline.cache_clear()
        assert not hub.offline()
        assert "did not give it. Check the name" in hub.why_not()
        server.shutdown()
    hub.offline.cache_clear()
