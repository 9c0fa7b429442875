"""Keys of a recipe that its task or its target has no use for: refused, and not left without an effect."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

if TYPE_CHECKING:
    from training.recipe.data import DataSettings
    from training.recipe.section import Section


def known_tasks() -> dict[str, Any]:
    """Return the tasks by name.

    They are above recipes, and so are found by the name of their module.
    """
    return cast("dict[str, Any]", importlib.import_module("training.tasks.registry").TASKS)


def refuse_others(task: str, name: str, value: Any) -> None:
    """Raise ValueError for a given key that `task` has no use for.

    The key is within the recipe's section `name`.
    """
    refused = known_tasks()[task].refused
    for key in (f"{name}{inner}" for inner in _given(value)):
        if key in refused:
            inner = key.removeprefix(name).removeprefix(".")
            raise ValueError(f"{f'{inner}: ' if inner else ''}not for {task}: {refused[key]}; leave it out")


def refuse_for_target(task: str, data: "DataSettings", section: "Section | None") -> None:
    """Raise ValueError for a recipe section that does not go with the kind of label."""
    if problem := known_tasks()[task].target(data).problem_of(section):
        raise ValueError(problem)


def _given(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the value's own place, and the places of values given below it.

    Values equal to the default are left out.
    """
    yield prefix
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set):
            inner = getattr(value, name)
            if inner != type(value).model_fields[name].default:
                yield from _given(inner, f"{prefix}.{name}")
