"""docs/reference/settings.md, from `shared/settings.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headgate.shared.settings import Settings, variable
from tests.docs.reference.markdown import document, item, sentence

INTRO = """
Set environment variables, or write them to a `.env` file in the current folder. The environment
wins over the file. `headgate settings` prints what is in force and where each value comes from;
secrets are masked.

A wrong value, or an unknown variable that starts with `HEADGATE_`, stops the process with exit code
2.
"""


def page() -> str:
    """Return the page."""
    ours = [_entry(name, field) for name, field in Settings.model_fields.items() if _is_ours(name)]
    others = [_entry(n, field) for n, field in Settings.model_fields.items() if not _is_ours(n)]
    return document(
        "Settings",
        INTRO,
        "## Headgate\n\n" + "\n".join(ours),
        "## Providers and Flower\n\n" + "\n".join(others),
    )


def _is_ours(name: str) -> bool:
    return variable(name).startswith("HEADGATE_")


def _entry(name: str, field: FieldInfo) -> str:
    words = sentence(field.description or "")
    facts = _bounds(field)
    if "(default" not in words:
        facts.insert(0, f"default `{shown}`" if (shown := _default(field)) else "no default")
    bounds = f" ({', '.join(facts)})" if facts else ""
    return item(f"`{variable(name)}`{bounds}: {words}")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value is PydanticUndefined or value == "":
        return ""
    return value.as_posix() if isinstance(value, Path) else f"{value}"


def _bounds(field: FieldInfo) -> list[str]:
    """Return what the type allows: its choices, or its least and greatest value."""
    choices = _choices(field.annotation)
    if choices:
        return ["one of " + " ".join(f"`{choice}`" for choice in choices)]
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = []
    for bound in _metadata(field):
        for attribute, words in signs.items():
            limit = getattr(bound, attribute, None)
            if limit is not None:
                found.append(f"{words} {limit}")
    return found


def _metadata(field: FieldInfo) -> list[Any]:
    inside = list(field.metadata)
    for part in get_args(field.annotation):
        for extra in getattr(part, "__metadata__", ()):
            inside += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return inside


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()
