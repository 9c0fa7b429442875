"""Whether the hub can be reached: asked once and briefly, for without a network its libraries retry for minutes."""

import functools

from huggingface_hub import configure_http_backend, constants, get_session

TIMEOUT_S = 5.0


@functools.cache
def offline() -> bool:
    """True when HF_HUB_OFFLINE says so or the hub does not answer: only what is in the cache can be used then.

    A hub that does not answer is not asked again in this process: its libraries do not pass `local_files_only` on to
    every look-up.
    """
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
        except OSError:  # every error of requests is one
            constants.HF_HUB_OFFLINE = True
            configure_http_backend()  # drops the open session, which knows nothing of the flag
    return constants.HF_HUB_OFFLINE


def why_not() -> str:
    """What to tell somebody whose name the hub did not give."""
    place = f"there is no such path here, and the hub ({constants.ENDPOINT})"
    if offline():
        return f"{place} cannot be reached. Check the network, or give a local path or package:NAME/path"
    return f"{place} did not give it. Check the name, or give a local path or package:NAME/path"
