"""Digest of a value, for the comparison of two processors."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
