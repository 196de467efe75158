"""The form of an answer: a pydantic model becomes a strict schema in the request's own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from headgate.producer.client.strict_schema import FIELD, schema_name, strict_schema
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.responses_checks import with_responses_form
from headgate.shared.job.result import Result

ResponseFormat: TypeAlias = type[BaseModel] | dict[str, Any]
"""What an answer must be: a pydantic model, or the vendor's own `response_format`."""

REMEDY = "give a pydantic model, or a dict in OpenAI's form"


def with_response_format(fields: RequestFields, wanted: ResponseFormat | None) -> RequestFields:
    """Return the fields with the wanted form of the answer in `params`; raise InvalidRequest."""
    if wanted is None:
        return fields
    model = model_of(wanted)
    # Instructions and items say the form, too.
    fields = cast(RequestFields, with_responses_form(dict(fields)))
    params = dict(fields.get("params") or {})
    if fields.get("input") is not None and fields.get("dialect", "openai") == "openai":
        raise InvalidRequest(FIELD, _name(wanted), "an embedding has no such form; leave it out")
    place, form = _placed(str(fields.get("dialect", "openai")), wanted, model)
    if isinstance(params.get(place), Mapping) and place != FIELD:
        form = {**params[place], **form}
    elif place in params:
        raise InvalidRequest(FIELD, _name(wanted), f"params.{place} is given, too; give one")
    return {**fields, "params": {**params, place: form}}


def _placed(
    dialect: str, wanted: ResponseFormat, model: type[BaseModel] | None
) -> tuple[str, dict[str, Any]]:
    """Return the param of this dialect that has the form of the answer, and its value."""
    if model is None:
        if dialect == "openai" and isinstance(wanted, dict):
            return FIELD, wanted
        raise InvalidRequest(FIELD, wanted, f"give a pydantic model, or params of {dialect}'s form")
    name, schema = schema_name(model), strict_schema(model)
    match dialect:
        case "anthropic":
            return "output_config", {"format": {"type": "json_schema", "schema": schema}}
        case "responses":
            form = {"type": "json_schema", "name": name, "schema": schema, "strict": True}
            return "text", {"format": form}
    named = {"name": name, "schema": schema, "strict": True}
    return FIELD, {"type": "json_schema", "json_schema": named}


def model_of(wanted: object) -> type[BaseModel] | None:
    """Return the model by which answers are parsed, if it is one; raise InvalidRequest."""
    if wanted is None or isinstance(wanted, dict):
        return None
    if isinstance(wanted, type) and issubclass(wanted, BaseModel) and wanted is not BaseModel:
        return wanted
    raise InvalidRequest(FIELD, wanted, REMEDY)


def parsed_by(result: Result, wanted: ResponseFormat | None) -> Result:
    """Return the result with the model that its `parsed` is made by."""
    model = model_of(wanted)
    return result if model is None else result.parsed_by(model)


def _name(wanted: ResponseFormat) -> object:
    return wanted.__name__ if isinstance(wanted, type) else wanted
