"""Recipe files: reading them with --set overrides, all problems in one message, and the origin of each value."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from bentune.bundle.errors import InputError
from training.recipe.derived import derived
from training.recipe.method import METHODS
from training.recipe.recipe import Recipe
from training.recipe.search import search_problems

MAX_BYTES = 1_000_000
SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A checked recipe, and the origin of each given value: the file or --set."""

    recipe: Recipe
    origins: dict[str, str]


class _PlainLoader(yaml.SafeLoader):
    """A YAML loader without traps: plain values as in YAML 1.2, a key only once, and no aliases.

    In YAML 1.1 `no` is a boolean, 2026-01-01 a date and 1e-4 a text. A second key of the same name silently replaces
    the first. A few lines of aliases can stand for more values than fit in memory.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise InputError(f"line {line}: an alias (*name) is not allowed in a recipe; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,18})", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", [*"-+.0123456789"]),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


class _PlainDumper(yaml.SafeDumper):
    """A YAML dumper that quotes texts which `_PlainLoader` would misread, and writes no aliases."""

    yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def spelled_out(recipe: Recipe) -> str:
    """Return the recipe as YAML with every value.

    `load_recipe` reads the same recipe from it.
    """
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read `path`, apply overrides of the form key.key=value, and check the recipe.

    Raises InputError that lists every problem with its key and the nearest valid name.
    """
    given = _read_yaml(path)
    origins = {key: str(path) for key, _ in _leaves(given)}
    for override in overrides:
        key, value = _parse_override(override)
        _place(given, key, value, override)
        replaced = {known for known in origins if known == key or known.startswith(key + ".")}
        origins = {known: origin for known, origin in origins.items() if known not in replaced}
        origins |= {leaf: "--set" for leaf, _ in _leaves({key: value})}
    if "name" not in given:
        given["name"] = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower())[:63].strip("-._") or "model"
        origins["name"] = "the recipe file's name"
    problems = _check(given) + search_problems(given, _check, _placed)
    if problems:
        listed = "".join(f"\n  {line}" for line in problems)
        raise InputError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}{listed}")
    return LoadedRecipe(_validated(given), origins)


class Explained(NamedTuple):
    """One value of a recipe, its origin and its meaning."""

    key: str
    value: Any
    origin: str
    meaning: str


def explain(loaded: LoadedRecipe) -> list[Explained]:
    """Return every value of the recipe as it is used, in the order of the model."""
    found = derived(loaded.recipe)
    return [
        row if row.key not in found else row._replace(value=found[row.key].value, origin=found[row.key].origin)
        for row in _explain(loaded.recipe, "", loaded.origins)
    ]


def _explain(section: BaseModel, prefix: str, origins: Mapping[str, str]) -> Iterator[Explained]:
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}{name}", getattr(section, name)
        if isinstance(value, BaseModel):
            # `method: lora` names the method; the other values of its section are defaults.
            inner = {f"{key}.name": origins[key]} if key in origins else {}
            yield from _explain(value, f"{key}.", {**origins, **inner})
        else:
            given = [origin for known, origin in origins.items() if known == key or known.startswith(f"{key}.")]
            plain = section.model_dump(mode="json")[name]
            yield Explained(key, plain, given[-1] if given else "default", field.description or "")


def digest(value: BaseModel | Mapping[str, Any]) -> str:
    """Return the sha256 of the canonical JSON of a recipe, or of a part of it."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _validated(given: Mapping[str, Any]) -> Recipe:
    # Strict, so that `true` is not a number. From JSON, because strict Python input requires objects for sections.
    return Recipe.model_validate_json(json.dumps(given, default=str), strict=True)


def _check(given: Mapping[str, Any]) -> list[str]:
    try:
        _validated(given)
    except ValidationError as error:
        return list(_problems(error))
    return []


def _placed(given: dict[str, Any], key: str, value: Any) -> None:
    """Put a searched value where an override would put it."""
    if not all(key.split(".")):
        raise InputError(f"{key!r}: write the keys of the recipe with a dot between them, for example train.epochs")
    try:
        _place(given, key, value, key)
    except InputError as error:
        raise InputError(str(error).removeprefix("--set ")) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; recipes there: {', '.join(nearby[:20])}" if nearby else ""
        raise InputError(f"{path}: no such recipe file{hint}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a recipe; is it the data?")
    try:
        given = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_PlainLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date or number, like 2026-99-99
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
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: write it as key=value, for example --set train.epochs=1")
    try:
        return key, yaml.load(value, Loader=_PlainLoader) if value else ""  # noqa: S506 (a SafeLoader)
    except InputError as error:
        raise InputError(f"--set {override}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        return key, value


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
    """Yield a line per key with its problem, one for each type that it may have."""
    messages: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        steps, section = _walk(problem["loc"])
        key, name = ".".join(steps), steps[-1]
        match problem["type"]:
            case "extra_forbidden":
                message = f"no such key{_nearest(name, section.model_fields)}"
            case "missing":
                whole = "every recipe" if Recipe.model_fields[steps[0]].is_required() else f"`{steps[0]}`"
                message = f"is missing; {whole} must give it"
            case "union_tag_invalid":
                message = f"no such method{_nearest(problem['ctx']['tag'], METHODS)}"
            case "union_tag_not_found":
                message = f"no such method; give `name` as one of {', '.join(METHODS)}"
            case "value_error":
                message = str(problem["ctx"]["error"])
            case _:
                message = problem["msg"]
                got[key] = f", got {str(problem['input'])[:SHOWN_CHARACTERS]!r}"
        messages.setdefault(key, []).append(message)
    for key, found in messages.items():
        yield f"{key}: {' / '.join(dict.fromkeys(found))}{got.get(key, '')}"


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; valid: {', '.join(names)}"


def _walk(location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """Return the steps of a problem's location, and the section of the last step.

    Steps that the user did not write are left out: pydantic adds the branch of a union ("lora", "list[str]").
    """
    steps: list[str] = []
    section: type[BaseModel] = Recipe
    inner: type[BaseModel] | None = Recipe
    mapping, values = False, None
    for step in location:
        if inner is not None:
            section = inner
            steps.append(str(step))
            field = section.model_fields.get(str(step))
            annotation: Any = field.annotation if field is not None else None
            inner = _section(annotation)
            mapping = get_origin(annotation) is dict
            values = get_args(annotation)[1] if mapping else None
        elif mapping or isinstance(step, int):
            steps.append(str(step))
            # The values of a mapping may be sections inside Annotated.
            held = getattr(values, "__origin__", values)
            inner = held if isinstance(held, type) and issubclass(held, BaseModel) else None
        elif step in METHODS:
            inner = METHODS[str(step)]
    return steps, section


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of a field, also of one that may be None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    given = [one for one in get_args(annotation) if one is not type(None)]
    return _section(given[0]) if isinstance(annotation, UnionType) and len(given) == 1 else None
