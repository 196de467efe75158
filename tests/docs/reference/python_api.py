"""docs/reference/python-api.md, from `headgate.__all__`."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args, is_typeddict

import headgate
from tests.docs.reference.markdown import document, filled, item, paragraph, text_block

INTRO = """
All that `from headgate import ...` gives. Names that are not listed here are private and may
change.
"""

FIELDS_PAGE = "Its fields are in [request and result](request-and-result.md)."
SETTINGS_PAGE = "Its fields are the [settings](settings.md), in lower case and without the prefix."
SEE = {
    **dict.fromkeys(("Request", "Result", "Usage", "CacheWish"), FIELDS_PAGE),
    **dict.fromkeys(("RequestFields", "ErrorReport", "FailedAttempt", "WaitingFor"), FIELDS_PAGE),
    "Settings": SETTINGS_PAGE,
}
"""Names whose fields stand on a page of their own."""

MOST_UNPACKED = 10
"""So many keywords of a TypedDict are listed in a signature; more stand where the type does."""


def page() -> str:
    """Return the page."""
    named = {name: getattr(headgate, name) for name in headgate.__all__}
    errors = {name: one for name, one in named.items() if _is_error(one)}
    others = {name: one for name, one in named.items() if name not in errors}
    return document(
        "Python API",
        INTRO,
        *(_class(name, one) for name, one in others.items()),
        "## Errors",
        "Every error is a `HeadgateError`. Its facts are attributes, named as its parameters.",
        *(_error(name, one) for name, one in errors.items()),
    )


def _is_error(one: Any) -> bool:
    return inspect.isclass(one) and issubclass(one, BaseException)


def _class(name: str, one: Any) -> str:
    if name in SEE:
        about = inspect.cleandoc(one.__doc__ or "").split("\n\n")[0]
        return "\n\n".join([f"## {name}", paragraph(about), SEE[name]])
    if choices := get_args(one):
        return f"## {name}\n\n" + filled("One of " + ", ".join(f"`{c}`" for c in choices) + ".")
    parts = [f"## {name}", paragraph(inspect.getdoc(one) or "")]
    if is_typeddict(one):
        keys = [item(f"`{key}`: `{_plain(_written(kind))}`") for key, kind in _keys(one)]
        parts.append("\n".join(keys))
    elif inspect.isclass(one):
        parts.insert(1, text_block(f"{name}{signature(one)}"))
        parts += [_member(f"{name}.{attribute}", member) for attribute, member in _members(one)]
    return "\n\n".join(part for part in parts if part)


def _error(name: str, one: type) -> str:
    bases = ", ".join(base.__name__ for base in one.__bases__)
    parts = [f"### {name}", text_block(f"{name}({bases}){_own_init(one)}")]
    return "\n\n".join([*parts, paragraph(one.__doc__ or "")])


def _own_init(one: type) -> str:
    return f"\n{one.__name__}{signature(one)}" if "__init__" in vars(one) else ""


def _members(one: type) -> list[tuple[str, Any]]:
    kinds = (property, classmethod, staticmethod)
    return [
        (name, member)
        for name, member in vars(one).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))
    ]


def _member(name: str, member: Any) -> str:
    words = paragraph(inspect.getdoc(member) or "")
    if isinstance(member, property):
        return "\n\n".join([f"### {name}", words])
    function = inspect.unwrap(getattr(member, "__func__", member))
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    return "\n\n".join([f"### {name}", text_block(f"{word} {name}{signature(function)}"), words])


def signature(one: Any) -> str:
    """Return the parameters, one a line where they do not fit into one; `self` is left out."""
    shown = inspect.signature(one)
    parts: list[str] = []
    for parameter in shown.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts += _unpacked(one, parameter) or [_plain(str(parameter))]
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parts.append("/")
    back = "" if inspect.isclass(one) or shown.return_annotation is shown.empty else (
        f" -> {_plain(str(shown.return_annotation))}"
    )  # fmt: skip
    line = f"({', '.join(parts)}){back}"
    return line if len(line) <= 80 else "(\n    " + ",\n    ".join(parts) + f",\n){back}"


def _plain(text: str) -> str:
    """Return an annotation without quotes and without the modules of its names."""
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text.replace("'", ""))


def _unpacked(one: Any, parameter: inspect.Parameter) -> list[str]:
    """Return the keys of a TypedDict that is unpacked into keywords, each with its type."""
    found = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation).strip("'"))
    fields = getattr(one, "__globals__", {}).get(found.group(1)) if found else None
    if fields is None or len(_keys(fields)) > MOST_UNPACKED:
        return []
    return ["*", *(f"{key}: {_plain(_written(kind))} = ..." for key, kind in _keys(fields))]


def _keys(fields: type) -> list[tuple[str, Any]]:
    return [
        pair for base in reversed(fields.__mro__) for pair in inspect.get_annotations(base).items()
    ]


def _written(kind: Any) -> str:
    text = getattr(kind, "__forward_arg__", None) or str(kind)
    return re.sub(r"^(?:Not)?Required\[(.*)\]$", r"\1", text)
