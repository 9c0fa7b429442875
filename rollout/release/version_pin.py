"""Pin of a version in a user's overlay: the file release.yaml, listed in its kustomization."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_text
from rollout.release.kubectl import Object

FILE = "release.yaml"
KUSTOMIZATION = "kustomization.yaml"
SERVED, BUNDLE = "model", "bundle"
"""Container that serves, and init container of the component `model-image`, whose image holds only the model."""
VERSION, CONTENT, DIGEST, IMAGE, VERDICT, FORCED = (
    f"bentune/{name}" for name in ("version", "content", "digest", "image", "verdict", "forced")
)


@dataclass(frozen=True)
class Pin:
    """Version as it is written to the pod template: the image of `container`, and annotations.

    `digest` is that of the bundle with its evidence, None for a version that is no longer in the store. `verdict` is
    the comparison's decision in a word, and `forced` the reason for a release against it.
    """

    tag: str
    content: str
    image: str
    container: str = SERVED
    digest: str | None = None
    verdict: str | None = None
    forced: str | None = None

    def annotations(self) -> dict[str, str | None]:
        """Return the pods' annotations; None removes the value of the former version."""
        return {
            VERSION: self.tag,
            CONTENT: self.content,
            DIGEST: self.digest,
            # The image at the time of writing: `kubectl set image` changes the container, but not this annotation.
            IMAGE: self.image,
            VERDICT: self.verdict,
            FORCED: self.forced,
        }

    def patch(self, deployment: str) -> Object:
        """Return a strategic merge patch of the Deployment."""
        containers = "initContainers" if self.container == BUNDLE else "containers"
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": deployment, "annotations": {"kubernetes.io/change-cause": f"bentune {self.tag}"}},
            "spec": {
                "template": {
                    "metadata": {"annotations": self.annotations()},
                    "spec": {containers: [{"name": self.container, "image": self.image}]},
                }
            },
        }


def pin_of(template: Object) -> Pin | None:
    """Return the version that a pod template is pinned to.

    Returns None without a pin, or if the image was changed since.
    """
    said = template.get("metadata", {}).get("annotations") or {}
    if VERSION not in said or CONTENT not in said:
        return None
    container = pinned_container(template)
    image = image_in(template)
    if said.get(IMAGE, image) != image:
        return None
    return Pin(said[VERSION], said[CONTENT], image, container, said.get(DIGEST), said.get(VERDICT), said.get(FORCED))


def pinned_container(template: Object) -> str:
    """Return the container whose image holds the model: the init container, if any.

    Raises InputError.
    """
    names = {one["name"] for one in _containers(template)}
    if SERVED not in names:
        raise InputError(
            f"the Deployment has no container {SERVED!r}: it is not one of k8s/base; it has {sorted(names)}"
        )
    return BUNDLE if BUNDLE in names else SERVED


def image_in(template: Object) -> str:
    """Return the image that holds the model."""
    container = pinned_container(template)
    return next(str(one.get("image", "")) for one in _containers(template) if one["name"] == container)


def write_pin(overlay: Path, deployment: str, pin: Pin) -> None:
    """Write `release.yaml` and list it in the kustomization, otherwise unchanged.

    Raises InputError. It is a transformer, not a patch: patches run before the overlay's own `images`, which would
    overwrite them.
    """
    # The file of an overlay has no former values to remove.
    patch = pin.patch(deployment)
    template = patch["spec"]["template"]["metadata"]
    template["annotations"] = {key: value for key, value in template["annotations"].items() if value is not None}
    content = {
        "apiVersion": "builtin",
        "kind": "PatchTransformer",
        "metadata": {"name": "bentune-release"},
        "target": {"kind": "Deployment", "name": deployment},
        "patch": yaml.safe_dump(patch, sort_keys=False),
    }
    kustomization = _kustomization(overlay)
    text = kustomization.read_text(encoding="utf-8")
    listed = _listed(text, kustomization)
    head = "# Written by `bentune release`: the version that this overlay runs. `bentune rollback` goes back.\n"
    write_text(overlay / FILE, head + yaml.dump(content, Dumper=_Block, sort_keys=False, width=1000))
    if listed != text:
        write_text(kustomization, listed)


def read_pin(objects: list[Object], deployment: str) -> Pin | None:
    """Return the version that a rendered overlay pins its Deployment to."""
    found = [one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == deployment]
    return pin_of(found[0]["spec"]["template"]) if found else None


class Saved:
    """Saved bytes of the files that `write_pin` changes."""

    def __init__(self, overlay: Path) -> None:
        paths = (overlay / FILE, _kustomization(overlay))
        self._bytes = {path: path.read_bytes() if path.is_file() else None for path in paths}

    def restore(self) -> None:
        """Write the saved bytes back."""
        for path, content in self._bytes.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content:
                write_text(path, content.decode())


class _Block(yaml.SafeDumper):
    """YAML dumper that writes text of several lines as a block."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Block.add_representer(str, _Block.represent_str)


def _containers(template: Object) -> list[Object]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def _kustomization(overlay: Path) -> Path:
    for name in (KUSTOMIZATION, "kustomization.yml", "Kustomization"):
        if (overlay / name).is_file():
            return overlay / name
    raise InputError(f"{overlay} is no overlay: it has no {KUSTOMIZATION}")


def _listed(text: str, path: Path) -> str:
    """Return the kustomization with release.yaml as its last transformer.

    Nothing overwrites the last transformer.
    """
    before: Object = yaml.safe_load(text) or {}
    names = before.get("transformers") or []
    if FILE in names:
        return text
    if "transformers" not in before:
        after = f"{text.rstrip()}\ntransformers:\n  - {FILE}\n"
    else:
        lines = text.splitlines(keepends=True)
        key = next((n for n, line in enumerate(lines) if line.rstrip() == "transformers:"), None)
        items = [] if key is None else _items(lines, key)
        after = text if not items else _inserted(lines, items[-1])
    try:
        fine = yaml.safe_load(after) == before | {"transformers": [*names, FILE]}
    except yaml.YAMLError:
        fine = False
    if not fine:
        raise InputError(f"{path}: add `- {FILE}` to its `transformers:` by hand; their format is not supported")
    return after


def _items(lines: list[str], key: int) -> list[int]:
    """Return the numbers of the lines below `key` that begin an item of one line."""
    found = []
    for number, line in enumerate(lines[key + 1 :], key + 1):
        if line.lstrip().startswith("- "):
            found.append(number)
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return found


def _inserted(lines: list[str], after: int) -> str:
    line = lines[after]
    indent = line[: len(line) - len(line.lstrip())]
    ended = line if line.endswith("\n") else line + "\n"
    return "".join([*lines[:after], ended, f"{indent}- {FILE}\n", *lines[after + 1 :]])
