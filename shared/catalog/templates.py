"""Templates: named prompts of the catalog, and how they fill in a request.

`{name}` is replaced by the variable of that name; `{{` and `}}` stand for braces. Nothing else has
a meaning: no code, no attributes, no formats. The text of a variable is never read as a template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from headgate.shared.catalog.faults import hint
from headgate.shared.catalog.schema import CatalogModel, Named, Text
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.job.request import Kind, Request
from headgate.shared.job.request_checks import check_messages, check_params

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")

Variables = Mapping[str, str | int | float | bool]


class Template(CatalogModel):
    """A named prompt or conversation; `model`, `params` and `task` are defaults of a request."""

    name: Named
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] | None = None
    model: Text | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    task: Kind | None = None
    description: str = ""

    @field_validator("prompt", "messages")
    @classmethod
    def _check_braces(cls, value: Any) -> Any:
        names_in(value)
        return value

    @model_validator(mode="after")
    def _check_prompt(self) -> Template:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of prompt and messages")
        try:
            check_messages(list(self.messages or ()))
            check_params(self.params)
        except WrongUse as fault:
            raise ValueError(str(fault)) from None
        return self

    @property
    def variables(self) -> frozenset[str]:
        """The names in braces; a request must give each of them."""
        return names_in(self.messages if self.prompt is None else self.prompt)


def names_in(value: object) -> frozenset[str]:
    """Return the variables in all texts of the value; raises ValueError for a single brace."""
    match value:
        case str():
            found = set()
            for piece in _PIECE.finditer(value):
                if piece[0] in "{}":
                    around = value[max(0, piece.start() - 10) : piece.end() + 10]
                    raise ValueError(
                        f"single brace in {around!r}; write {{name}} for a variable, "
                        "{{ and }} for braces"
                    )
                if piece[1]:
                    found.add(piece[1])
            return frozenset(found)
        case Mapping():
            return frozenset().union(*map(names_in, value.values()))
        case list() | tuple():
            return frozenset().union(*map(names_in, value))
    return frozenset()


def rendered(value: Any, texts: Mapping[str, str]) -> Any:
    """Return the value with the variables in all its texts replaced."""
    match value:
        case str():
            return _PIECE.sub(lambda piece: texts[piece[1]] if piece[1] else piece[0][0], value)
        case Mapping():
            return {name: rendered(item, texts) for name, item in value.items()}
        case list() | tuple():
            return [rendered(item, texts) for item in value]
    return value


def expanded(request: Request, templates: Mapping[str, Template]) -> Request:
    """Return the request with the prompt or messages that its template makes of its variables.

    It keeps the template's name, by which usage and estimates are counted. Raises InvalidRequest
    for an unknown template, for a request with a prompt of its own, and for a variable that is
    missing or unknown.
    """
    if request.template is None:
        if request.variables:
            remedy = "give the template that these variables belong to"
            raise InvalidRequest("variables", sorted(request.variables), remedy)
        return request
    template = _template_of(request, templates)
    texts = _texts(request.variables, template)
    filled: dict[str, Any] = {
        "variables": {},
        "params": _params(request.params, template.params),
        "model": request.model or template.model,
        "task": request.task or template.task,
    }
    if template.prompt is not None:
        filled["prompt"] = rendered(template.prompt, texts)
        if not filled["prompt"]:
            remedy = f"template {template.name} makes an empty prompt of these; give a text"
            raise InvalidRequest("variables", dict(request.variables), remedy)
    else:
        filled["messages"] = rendered(template.messages, texts)
    return request.model_copy(update=filled)


def _template_of(request: Request, templates: Mapping[str, Template]) -> Template:
    for field in ("prompt", "messages", "input"):
        if (given := getattr(request, field)) is not None:
            remedy = "the template gives the prompt; leave out one of the two"
            raise InvalidRequest(field, given, remedy)
    name = request.template or ""
    template = templates.get(name)
    if template is None:
        remedy = f"no such template; the catalog has {', '.join(templates) or 'none'}"
        raise InvalidRequest("template", name, remedy + hint(name, templates, "; "))
    return template


_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
"""Two names of one param: a request that gives either overrides both of the template."""


def _params(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    limits = own.keys() & _LIMITS
    return {k: v for k, v in defaults.items() if k not in _LIMITS or not limits} | dict(own)


def _texts(given: Variables, template: Template) -> dict[str, str]:
    wanted = template.variables
    for name in sorted(wanted - given.keys()):
        raise InvalidRequest(f"variables.{name}", None, f"template {template.name} needs it")
    for name, value in given.items():
        if name not in wanted:
            known = ", ".join(sorted(wanted)) or "none"
            remedy = f"template {template.name} has no such variable; it has {known}"
            raise InvalidRequest(f"variables.{name}", value, remedy + hint(name, wanted, "; "))
    return {name: _text(value) for name, value in given.items()}


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
