"""Finds the bundle of what is served: by tag, by directory, or by asking a live service which it is."""

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.store import find_bundle
from rollout.server.live import Identity, parse_info
from rollout.server.scrape import read_info
from rollout.server.target import address_of, is_address


def find_served(given: str) -> Bundle:
    """The bundle in this machine's store that a tag, a bundle's directory, or the /info of an address means.

    Raises InputError when the address does not answer as Bentune does, or when what is meant is not in the store, byte
    for byte but for its evidence.
    """
    if is_address(given):
        tag, content = asked(given)
        where = f"{given} serves {tag}"
    else:
        found = find_bundle(given)
        tag, content, where = found.tag, found.content, f"{given} is {found.tag}"
    try:
        bundle = find_bundle(tag)
    except InputError:
        bundle = None
    if bundle is None or bundle.content != content:
        there = "is not in the BentoML model store here" if bundle is None else "in the BentoML model store is another"
        raise InputError(
            f"{where}, which {there}: bring it there with `bentoml models import` or `bentoml models pull`"
        )
    return bundle


def asked(address: str) -> tuple[str, str]:
    """The tag and the content digest that a service says it serves. Raises InputError."""
    url, _ = address_of(address)
    said = read_info(url)
    if said is None:
        raise InputError(f"{address}: no Bentune service answers /info there; give its address, a tag or a directory")
    identity = parse_info(Identity, address, said)
    return identity.tag, identity.content
