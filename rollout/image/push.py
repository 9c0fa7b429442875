"""Push of an image to a registry: a full one by a container engine, a model's by skopeo."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.store import find_bento
from rollout.image.bento_image import build_image, find_engine
from rollout.image.model_image import write_model_image

Tell = Callable[[str], None]

REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+")
TAIL = 500


def push_image(
    tag: str, repository: str, *, engine: str | None = None, base: str, insecure: bool = False, tell: Tell
) -> str:
    """Build and push the image of Bento `tag`; return REPOSITORY:VERSION@sha256:...

    Raises InputError without an engine, and BentuneError with the engine's error.
    """
    name = _name(repository, tag.partition(":")[2] or find_bento(tag).tag.version or "latest")
    program = find_engine(engine)
    build_image(find_bento(tag), name, engine=program, base=base, tell=tell)
    if program == "docker":
        _run([program, "push", name], tell)
        shown = _run([program, "image", "inspect", name, "--format", "{{json .RepoDigests}}"], lambda _: None)
        found: list[str] = json.loads(shown)
        digests = [one.partition("@")[2] for one in found if one.partition("@")[0] == repository]
        if not digests:
            raise BentuneError(f"docker did not return the digest of {name} after its push; give it with --image")
        return f"{name}@{digests[0]}"
    with tempfile.TemporaryDirectory(prefix="bentune-push-") as directory:
        digest = Path(directory) / "digest"
        options = ["--tls-verify=false"] if insecure else []
        _run([program, "push", *options, "--digestfile", str(digest), name], tell)
        return f"{name}@{digest.read_text(encoding='utf-8').strip()}"


def push_model(bundle: Bundle, repository: str, *, insecure: bool = False, tell: Tell) -> str:
    """Push the image of the model alone and return REPOSITORY:VERSION@sha256:...

    The image is for the component `model-image`. It needs no container engine, so that it works in an unprivileged pod.
    Raises InputError without skopeo or busybox, and BentuneError with the registry's error.
    """
    if shutil.which("skopeo") is None:
        raise InputError("skopeo is not installed: it pushes the model's image to the registry")
    name = _name(repository, bundle.manifest.version)
    with tempfile.TemporaryDirectory(prefix="bentune-push-") as directory:
        layout, digest = Path(directory) / "image", Path(directory) / "digest"
        write_model_image(bundle, layout, bundle.manifest.version)
        tell(f"{name}: the model's image is written")
        options = ["--dest-tls-verify=false"] if insecure else []
        # The default needs a policy file that only packages of engines install; the image is our own.
        command = ["skopeo", "copy", "--insecure-policy", *options, "--digestfile", str(digest)]
        _run([*command, f"oci:{layout}:{bundle.manifest.version}", f"docker://{name}"], tell)
        return f"{name}@{digest.read_text(encoding='utf-8').strip()}"


def _name(repository: str, version: str) -> str:
    if not REPOSITORY.fullmatch(repository):
        raise InputError(f"--push {repository}: write REGISTRY/NAME, without a tag: the version becomes the tag")
    return f"{repository}:{version}"


def _run(command: list[str], tell: Tell) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    for line in (done.stdout + done.stderr).splitlines():
        tell(line)
    if done.returncode != 0:
        raise BentuneError(f"`{' '.join(command[:2])}` failed with exit code {done.returncode}: {done.stderr[-TAIL:]}")
    return done.stdout
