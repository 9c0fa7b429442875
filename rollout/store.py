"""Finds bundles and Bentos: by tag in the BentoML stores, or by directory."""

from pathlib import Path

import bentoml

from service.contract import MANIFEST, MODULE, Bundle, open_bundle
from service.errors import InputError


def find_bundle(tag: str) -> Bundle:
    """Open NAME (its newest version), NAME:VERSION, or a bundle's directory. Raises InputError, BundleError."""
    if (Path(tag) / MANIFEST).is_file():
        return open_bundle(Path(tag))
    try:
        model = bentoml.models.get(tag)
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = sorted((str(model.tag) for model in bentoml.models.list() if model.info.module == MODULE), reverse=True)
        listed = f"it has {', '.join(known[:5])}" if known else "it has none: `bentune run RECIPE` makes one"
        raise InputError(f"{tag} is not in the BentoML model store; {listed}") from error
    return open_bundle(Path(model.path))


def find_bento(tag: str) -> bentoml.Bento:
    """The Bento NAME (its newest version) or NAME:VERSION. Raises InputError."""
    try:
        return bentoml.bentos.get(tag)
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = sorted((str(bento.tag) for bento in bentoml.bentos.list()), reverse=True)
        listed = f"it has {', '.join(known[:5])}" if known else "it has none: `bentune run RECIPE` builds one"
        raise InputError(f"{tag} is not in the BentoML store; {listed}") from error
