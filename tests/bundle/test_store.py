"""Versions: each is greater than all before it, whatever the clock does."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.store import newest, next_version, stored_at

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_version_says_when_and_what() -> None:
    assert next_version([], NOON.replace(microsecond=5), "abcdef0123") == ("20261123-120000-abcdef", NOON)
    assert stored_at("20261123-120000-abcdef") == NOON


def test_what_bentune_did_not_name_is_no_version_of_it() -> None:
    for foreign in ("latest", "v2", "20261123-120000", "20261399-120000-abcdef", "20261123-120000-ABCDEF", "x" * 22):
        assert stored_at(foreign) is None
    assert next_version(["zzz", "latest", "99999999-999999-ffffff"], NOON, "abcdef")[0] == "20261123-120000-abcdef"
    assert newest(["zzz"]) is None
    assert newest(["zzz", "20261123-120000-abcdef", "20261122-120000-ffffff"]) == "20261123-120000-abcdef"


@given(
    st.lists(
        st.tuples(st.integers(-100_000, 100_000), st.text("0123456789abcdef", min_size=6, max_size=64)), max_size=20
    )
)
def test_each_is_greater_than_all_before_it(moments: list[tuple[int, str]]) -> None:
    """Within a second, after the clock went back, and with smaller digests."""
    stored: list[str] = []
    for seconds, sha256 in moments:
        now = NOON + timedelta(milliseconds=seconds)
        version, at = next_version(stored, now, sha256)
        assert all(version > earlier for earlier in stored)
        assert at == stored_at(version) >= now.replace(microsecond=0)
        assert newest([*stored, version]) == version
        stored.append(version)
