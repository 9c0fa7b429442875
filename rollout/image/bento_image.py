"""Container image of a Bento: its packages, its model in its own layer, and no build tools."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bentoml
import yaml
from packaging.requirements import InvalidRequirement, Requirement

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.manifest import Bundle
from rollout.server.target import bundle_of

ENGINES = ("docker", "podman", "buildah")
BASE = "python:3.11-slim"
TAIL_LINES = 20


@dataclass(frozen=True)
class Built:
    """Image in the engine's own store."""

    name: str
    engine: str
    bento: str
    model: str


def find_engine(name: str | None = None) -> str:
    """Find the container engine: the given one, or the first of ENGINES that answers.

    Raises InputError when there is none.
    """
    for engine in [name] if name else ENGINES:
        # A client without its daemon cannot build.
        if shutil.which(engine) and subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0:
            return engine
    wanted = name or ", ".join(ENGINES)
    raise InputError(f"no container engine answers `info`: tried {wanted}; install one, or start its daemon")


def build_image(
    bento: bentoml.Bento,
    name: str,
    *,
    engine: str,
    tell: Callable[[str], None],
    base: str = BASE,
    revision: str = "",
    only: str | None = None,
) -> Built:
    """Build the image `name` of `bento` upon `base`.

    The base has Python 3.11 and its venv module. `only` is "model" for the model alone in /models, or "server" for the
    rest, which finds a model in BENTOML_HOME. `revision` is the source revision for the image's labels. `tell` is
    called with each line of the engine's output. Raises InputError, BundleError, and BentuneError with the end of the
    engine's output.
    """
    bundle = bundle_of(str(bento.tag))
    with tempfile.TemporaryDirectory(prefix="bentune-image-") as directory:
        context = Path(directory)
        write_context(context, Path(bento.path), bundle)
        if only == "server":
            forget_model(context / "bento/bento.yaml")
        labels = {
            "org.opencontainers.image.title": bundle.manifest.name,
            "org.opencontainers.image.version": bundle.manifest.version,
            "org.opencontainers.image.revision": revision,
            "org.opencontainers.image.created": bundle.manifest.created_at.isoformat(),
            "bentune.bento": str(bento.tag),
            "bentune.digest": bundle.digest,
        }
        _run(_command(engine, name, base, labels, context, only), tell)
    return Built(name, engine, str(bento.tag), bundle.tag)


def write_context(context: Path, bento: Path, bundle: Bundle) -> None:
    """Write the Dockerfiles and the files they copy into the empty `context`.

    Raises BentuneError.
    """
    for dockerfile in Path(__file__).parent.glob("*.Dockerfile"):
        shutil.copyfile(dockerfile, context / dockerfile.name)
    packages = requirements((bento / "env/python/requirements.txt").read_text(encoding="utf-8"))
    (context / "requirements.txt").write_text("".join(f"{line}\n" for line in packages), encoding="utf-8")
    # The model has its own layer, and env/ is for BentoML's own builds.
    shutil.copytree(bento, context / "bento", ignore=shutil.ignore_patterns("models", "env", "__pycache__"))
    model = context / "models" / bundle.manifest.name
    shutil.copytree(bundle.root, model / bundle.manifest.version)
    (model / "latest").write_text(bundle.manifest.version, encoding="utf-8")
    # Readable by all: the image's user does not own the store.
    for path in [context, *context.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def forget_model(description: Path) -> None:
    """Make a Bento serve the newest version of its store.

    The version comes with the image of the model.
    """
    content = yaml.safe_load(description.read_text(encoding="utf-8"))
    content["args"]["model"] = content["args"]["model"].partition(":")[0]
    for service in content["services"]:
        service["models"] = []
    description.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def requirements(text: str) -> list[str]:
    """Return the pinned packages of a Bento, without options.

    The options, such as the builder's package index, are dropped. Raises BentuneError for a line without a pinned
    version: the image must have the versions of the build.
    """
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    packages = [line for line in lines if line and not line.startswith(("-", "#"))]
    for line in packages:
        if not _pinned(line):
            raise BentuneError(f"the Bento's requirements do not pin {line!r}; build it again with `bentoml build`")
    return packages


def _pinned(line: str) -> bool:
    """Return true if a line pins one version.

    The version in a marker is Python's, and the content of a URL may change.
    """
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return False
    return any(one.operator == "==" and not one.version.endswith(".*") for one in requirement.specifier)


def _command(engine: str, name: str, base: str, labels: dict[str, str], context: Path, only: str | None) -> list[str]:
    options = [part for label, value in labels.items() for part in ("--label", f"{label}={value}")]
    command = [engine, "build", "--tag", name, "--build-arg", f"BASE={base}", *options]
    # One layer per step, cached for the next version: buildah's default is a single layer.
    if engine != "docker":
        command += ["--layers", "--format", "oci"]
    if only == "server":
        command += ["--target", "server"]
    dockerfile = "model.Dockerfile" if only == "model" else "serving.Dockerfile"
    return [*command, "--file", str(context / dockerfile), str(context)]


def _run(command: Sequence[str], tell: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            tell(lines[-1])
    if process.returncode != 0:
        tail = "\n".join(lines[-TAIL_LINES:])
        raise BentuneError(f"`{command[0]} build` failed with exit code {process.returncode}; the end of it:\n{tail}")
