"""Numbers of examples of property tests: in CI few and the same each time, at home as many as a test asks for."""

import os

from hypothesis import HealthCheck, settings

IN_CI = 25


def load_profile() -> None:
    """Set what a property has that asks for nothing."""
    settings.register_profile("ci", max_examples=IN_CI, deadline=None, derandomize=True, database=None)
    settings.register_profile("dev", deadline=None)
    settings.load_profile("ci" if os.environ.get("CI") else "dev")


def examples(count: int, *, ci: int = IN_CI, fixtures: bool = False) -> settings:
    """Try `count` examples, in CI at most `ci`.

    With `fixtures`, all of them have the same fixture of the function.
    """
    suppressed = [HealthCheck.function_scoped_fixture] if fixtures else []
    count = min(count, ci) if os.environ.get("CI") else count
    return settings(max_examples=count, deadline=None, suppress_health_check=suppressed)
