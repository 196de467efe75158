"""Named prompts of the catalog: what they may hold, and how a request becomes what it stands for.

`{name}` is replaced by the variable of that name, `{{` and `}}` are braces. Nothing else is read:
no code, no attributes, no formats; what a variable holds is text, and is not looked at again.
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
    """A named prompt, or a conversation; what a request does not say of `model` to `task`, it does.

    `variables`: the names that a request must give.
    """

    name: Named
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] | None = None
    model: Text | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    task: Kind | None = None
    description: str = ""

    @field_validator("prompt", "messages")
    @classmethod
    def _has_right_braces(cls, value: Any) -> Any:
        names_in(value)
        return value

    @model_validator(mode="after")
    def _is_one_prompt(self) -> Template:
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
        """The names that stand in braces."""
        return names_in(self.messages if self.prompt is None else self.prompt)


def names_in(value: object) -> frozenset[str]:
    """The variables in all texts of the value; ValueError for a brace that is none of them."""
    match value:
        case str():
            found = set()
            for piece in _PIECE.finditer(value):
                if piece[0] in "{}":
                    around = value[max(0, piece.start() - 10) : piece.end() + 10]
                    raise ValueError(
                        f"a lone brace in {around!r}: write {{name}}, or {{{{ and }}}} for braces"
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
    """The value with all variables in its texts replaced."""
    match value:
        case str():
            return _PIECE.sub(lambda piece: texts[piece[1]] if piece[1] else piece[0][0], value)
        case Mapping():
            return {name: rendered(item, texts) for name, item in value.items()}
        case list() | tuple():
            return [rendered(item, texts) for item in value]
    return value


def expanded(request: Request, templates: Mapping[str, Template]) -> Request:
    """The request with the prompt or the messages that its template makes, without its variables.

    It keeps the template's name, which books and estimates go by. InvalidRequest for a template
    that is not known, beside words of its own, and for a variable too few or too many.
    """
    if request.template is None:
        if request.variables:
            raise InvalidRequest("variables", sorted(request.variables), "name their template, too")
        return request
    for field in ("prompt", "messages", "input"):
        if (given := getattr(request, field)) is not None:
            raise InvalidRequest(field, given, "the template makes the prompt; leave one out")
    template = templates.get(request.template)
    if template is None:
        remedy = f"no such template; the catalog has {', '.join(templates) or 'none'}"
        remedy += hint(request.template, templates, "; ")
        raise InvalidRequest("template", request.template, remedy)
    texts = _texts(request.variables, template)
    own = request.params
    params = {
        k: v for k, v in template.params.items() if k not in _LIMITS or not own.keys() & _LIMITS
    }
    made: dict[str, Any] = {
        "variables": {},
        "params": {**params, **own},
        "model": request.model or template.model,
        "task": request.task or template.task,
    }
    if template.prompt is not None:
        made["prompt"] = rendered(template.prompt, texts)
        if not made["prompt"]:
            raise InvalidRequest("variables", dict(request.variables), "they make an empty prompt")
    else:
        made["messages"] = rendered(template.messages, texts)
    return request.model_copy(update=made)


_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


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
