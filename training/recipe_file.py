"""Reads a recipe file and the --set overrides, reports every problem at once, and tells where each value came from."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from service.errors import InputError
from training.recipe import METHODS, Recipe

MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A checked recipe, and for each given value whether the file or --set gave it."""

    recipe: Recipe
    origins: dict[str, str]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a second key of the same name win silently; a recipe does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice; remove one")
            seen.add(key if isinstance(key, str | int | float) else str(key))
        return super().construct_mapping(node, deep)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read `path`, apply overrides of the form key.key=value, and check the whole.

    Raises InputError that lists every problem with its path in the recipe and the nearest valid name.
    """
    given = _read_yaml(path)
    origins = {key: str(path) for key, _ in _leaves(given)}
    for override in overrides:
        key, value = _parse_override(override)
        _place(given, key, value, override)
        origins = {known: origin for known, origin in origins.items() if not known.startswith(key + ".")}
        origins[key] = "--set"
    if "name" not in given:
        given["name"] = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "model"
        origins["name"] = "the recipe file's name"
    try:
        return LoadedRecipe(Recipe.model_validate(given), origins)
    except ValidationError as error:
        problems = [f"  {line}" for line in dict.fromkeys(_problems(error))]
        raise InputError(
            f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}\n" + "\n".join(problems)
        ) from None


class Explained(NamedTuple):
    """One value of a recipe: where it came from, and what it means."""

    key: str
    value: Any
    origin: str
    meaning: str


def explain(loaded: LoadedRecipe) -> list[Explained]:
    """Every value of the recipe, in the order of the model."""
    return list(_explain(loaded.recipe, "", loaded.origins))


def _explain(section: BaseModel, prefix: str, origins: Mapping[str, str]) -> Iterator[Explained]:
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}{name}", getattr(section, name)
        if isinstance(value, BaseModel):
            # `method: lora` names the method; the rest of its section are still defaults.
            inner = {f"{key}.name": origins[key]} if key in origins else {}
            yield from _explain(value, f"{key}.", {**origins, **inner})
        else:
            given = [origin for known, origin in origins.items() if known == key or known.startswith(f"{key}.")]
            yield Explained(key, value, given[-1] if given else "default", field.description or "")


def digest(value: BaseModel | Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a recipe or of a part of one."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; recipes there: {', '.join(nearby[:20])}" if nearby else ""
        raise InputError(f"{path}: no such recipe file{hint}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a recipe; is it the data?")
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deep for a recipe") from None
    if not isinstance(given, dict):
        raise InputError(f"{path}: a recipe is a mapping with `task`, `model` and `data`")
    return given


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: write it as key=value, for example --set train.epochs=1")
    try:
        return key.strip(), yaml.safe_load(value) if value else ""
    except yaml.YAMLError:
        return key.strip(), value


def _place(given: dict[str, Any], key: str, value: Any, override: str) -> None:
    *parents, last = key.split(".")
    place = given
    for depth, parent in enumerate(parents):
        inner = place.setdefault(parent, {})
        if isinstance(inner, str) and parent == "method":
            inner = place[parent] = {"name": inner}
        if not isinstance(inner, dict):
            raise InputError(f"--set {override}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        place = inner
    if parents == ["method"] and last != "name":
        place.setdefault("name", "lora")
    place[last] = value


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, path + ".")
        else:
            yield path, inner


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        # A tagged union puts its tag into the path; the user never wrote it.
        steps = [str(step) for step in problem["loc"]]
        if len(steps) > 1 and steps[0] == "method" and steps[1] in METHODS:
            steps.pop(1)
        key = ".".join(steps)
        if problem["type"] == "extra_forbidden":
            yield f"{key}: no such key{_nearest(problem['loc'])}"
        elif problem["type"] == "missing":
            yield f"{key}: is missing; every recipe must give it"
        elif problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield f"{key}: no such method; give `name` as one of {', '.join(METHODS)}"
        else:
            yield f"{key}: {problem['msg']}, got {str(problem['input'])[:80]!r}"


def _nearest(location: tuple[int | str, ...]) -> str:
    section = _section_at(location[:-1])
    if section is None:
        return ""
    names = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; valid: {', '.join(names)}"


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    section: Any = Recipe
    for step in location:
        if step in METHODS:
            section = METHODS[str(step)]
            continue
        if not (isinstance(section, type) and issubclass(section, BaseModel)) or step not in section.model_fields:
            return None
        section = section.model_fields[str(step)].annotation
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None
