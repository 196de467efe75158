"""docs/reference/request-and-result.md, from the models of requests and results."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import headgate
from headgate.shared.job import request as request_module
from headgate.shared.job.request import CacheWish, Kind, Priority, Request
from headgate.shared.job.result import ErrorReport, FailedAttempt, Result, Status, Usage
from headgate.shared.job.waiting_for import WaitingFor, WaitKind
from tests.docs.reference.markdown import document, item, paragraph, sentence
from tests.docs.reference.notes import RESULT_FIELDS
from tests.docs.reference.source import attribute_docs, docstring_fields

INTRO = """
The fields of a request are the keywords of `Client.submit`, the keys of a batch line and the keys
of a stock Celery message. An unknown field is refused by name. A result is the same in Python, on
the command line with `--json`, and in Celery's result backend.
"""

CHOICES: dict[str, tuple[str, ...]] = {
    "Priority": get_args(Priority),
    "Kind": get_args(Kind),
    "Status": get_args(Status),
    "WaitKind": get_args(WaitKind),
}
"""The choices that have a name in the code; error codes have a page of their own."""


def page() -> str:
    """Return the page."""
    request = fields_of_model(Request, {})
    result = fields_of_dataclass(Result, RESULT_FIELDS)
    return document(
        "Request and result",
        INTRO,
        f"## Request\n\n{paragraph(Request.__doc__ or '')}\n\n{request}",
        f"## Cache\n\nThe field `cache` of a request.\n\n{fields_of_model(CacheWish, {})}",
        f"## Result\n\n{paragraph(Result.__doc__ or '')}\n\n{result}",
        *map(_smaller, (Usage, ErrorReport, FailedAttempt, WaitingFor)),
    )


def _smaller(owner: type) -> str:
    about = paragraph(owner.__doc__ or "")
    return f"## {owner.__name__}\n\n{about}\n\n{fields_of_dataclass(owner, {})}"


def fields_of_model(model: type[BaseModel], notes: Mapping[str, str]) -> str:
    """Return the fields of a pydantic model as a list."""
    hints = inspect.get_annotations(model)
    lines = []
    for name, field in model.model_fields.items():
        words = describe(model, name) or notes.get(name, "")
        lines.append(_item(name, _type(hints[name]), _default(field), words))
    return "\n".join(lines)


def fields_of_dataclass(owner: type, notes: Mapping[str, str]) -> str:
    """Return the fields of a dataclass as a list."""
    return "\n".join(
        _item(f.name, _type(str(f.type)), "", describe(owner, f.name) or notes.get(f.name, ""))
        for f in dataclasses.fields(owner)
        if not f.name.startswith("_")
    )


def describe(owner: type, name: str) -> str:
    """Return what the code itself says of a field.

    That is its description, the string below it, or its line in the docstring of the class. A
    request is described by the type of its keywords.
    """
    field: Any = getattr(owner, "model_fields", {}).get(name)
    if field is not None and field.description:
        return str(field.description)
    keywords = headgate.RequestFields if owner is Request else owner
    return attribute_docs(owner).get(name) or docstring_fields(keywords).get(name, "")


def _item(name: str, kind: str, default: str, words: str) -> str:
    facts = f"{kind}, default {default}" if default else kind
    return item(f"`{name}` ({facts}){': ' + sentence(words) if words else ''}")


def _type(annotation: str) -> str:
    """Return an annotation as a caller reads it: checks left out, choices spelled out."""
    text = re.sub(r"Annotated\[(.+), Field\(.*\)\](?= \||$)", r"\1", annotation)
    text = re.sub(r"\b[A-Z]\w+", lambda found: _plain(found.group()), text)
    choices = CHOICES.get(text) or CHOICES.get(text.removesuffix(" | None"))
    if text.startswith("Literal["):
        choices = tuple(re.findall(r"[\"'](\w+)[\"']", text))
    return "one of " + " ".join(f"`{choice}`" for choice in choices) if choices else f"`{text}`"


def _plain(name: str) -> str:
    """Return `str` for the name of a text with checks, and any other name as it is."""
    known = vars(request_module).get(name)
    return "str" if get_origin(known) is Annotated and get_args(known)[0] is str else name


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is None or field.default_factory is not None:
        return ""
    return "" if isinstance(field.default, BaseModel) else f"`{field.default}`"
