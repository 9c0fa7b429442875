"""The directory that results are written to: made, or refused, before anything is computed."""

from pathlib import Path

from bentune.bundle.errors import InputError


def require_directory(out: Path) -> None:
    """Make it where it is not there yet. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); give another directory") from None
