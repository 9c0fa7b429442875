"""Keys of a recipe without a meaning for its task or its target: errors, because they would have no effect."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

if TYPE_CHECKING:
    from training.recipe.data import DataSettings
    from training.recipe.section import Section


def known_tasks() -> dict[str, Any]:
    """Return the tasks by name; imported late, because tasks import recipes."""
    return cast("dict[str, Any]", importlib.import_module("training.tasks.registry").TASKS)


def refuse_others(task: str, name: str, value: Any) -> None:
    """Raise ValueError for a key of section `name` that `task` does not use."""
    refused = known_tasks()[task].refused
    for key in (f"{name}{inner}" for inner in _given(value)):
        if key in refused:
            inner = key.removeprefix(name).removeprefix(".")
            raise ValueError(f"{f'{inner}: ' if inner else ''}not for {task}: {refused[key]}; leave it out")


def refuse_for_target(task: str, data: "DataSettings", section: "Section | None") -> None:
    """Raise ValueError for a recipe section that does not fit the kind of label."""
    if problem := known_tasks()[task].target(data).problem_of(section):
        raise ValueError(problem)


def _given(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield `prefix` and the keys below it whose values differ from the default."""
    yield prefix
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set):
            inner = getattr(value, name)
            if inner != type(value).model_fields[name].default:
                yield from _given(inner, f"{prefix}.{name}")
