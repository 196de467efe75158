"""The JSON schema of a pydantic model in the strict form that vendors want for answers.

Each object names all its fields as required and allows no others; there are no defaults, because
the model must give every value. OpenAI documents these rules as structured outputs; Anthropic's
format takes such schemas, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from headgate.shared.errors import InvalidRequest

FIELD = "response_format"

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]+")

MAX_NAME_CHARACTERS = 64
"""OpenAI's limit for the name of a schema."""


def schema_name(model: type[BaseModel]) -> str:
    """Return the name of the schema, which may have letters, digits, `_` and `-` only."""
    return _NO_NAME.sub("_", model.__name__)[:MAX_NAME_CHARACTERS].strip("_") or "answer"


@lru_cache(maxsize=64)
def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the strict schema of the model; raise InvalidRequest if it has no such form."""
    try:
        schema = model.model_json_schema()
    except PydanticUserError as error:  # such as a field of a class that is not defined yet
        raise InvalidRequest(
            FIELD, model.__name__, f"has no JSON schema: {error.message}"
        ) from None
    root = _strict(schema, schema, model.__name__)
    if "$ref" in root:  # a model that has itself as a field
        root = {**_target(root["$ref"], root), **_without(root, "$ref")}
    if root.get("type") != "object":
        remedy = "the answer must be an object; give a model with fields"
        raise InvalidRequest(FIELD, model.__name__, remedy)
    return root


def _strict(
    schema: Mapping[str, Any], root: Mapping[str, Any], where: str, within: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the schema at this place in its strict form; `within`: the models written out here."""
    bare = _without(schema, "default", "discriminator", "uniqueItems")
    if "$ref" in bare and len(bare) > 1 and schema is not root:
        # Nothing may stand beside a reference, such as the description of a field.
        reference = bare["$ref"]
        if reference in within:  # a model within itself cannot be written out
            return {"$ref": reference}
        within = (*within, reference)
        bare = {**_target(reference, root), **_without(bare, "$ref")}
    made = _with_strict_parts(bare, root, where, within)
    if "oneOf" in made:  # of a union with a discriminator; strict schemas know anyOf only
        made["anyOf"] = made.pop("oneOf")
    match made.get("allOf"):
        case [dict(only)]:
            made = {**only, **_without(made, "allOf")}
    if made.get("type") != "object":
        return made
    if made.get("additionalProperties"):
        remedy = "a dict of any keys has no strict schema; use a model with fields"
        raise InvalidRequest(FIELD, where, remedy)
    fields = made.get("properties", {})
    closed = {"properties": fields, "required": list(fields), "additionalProperties": False}
    return {**made, **closed}


def _with_strict_parts(
    schema: dict[str, Any], root: Mapping[str, Any], where: str, within: tuple[str, ...]
) -> dict[str, Any]:
    """Return the schema with all schemas inside of it in their strict form."""
    made = dict(schema)
    for name in schema.keys() & {"$defs", "properties"}:
        parts = schema[name].items()
        made[name] = {key: _strict(part, root, f"{where}.{key}", within) for key, part in parts}
    for name in schema.keys() & {"anyOf", "oneOf", "allOf", "prefixItems"}:
        made[name] = [_strict(part, root, where, within) for part in schema[name]]
    if isinstance(schema.get("items"), Mapping):
        made["items"] = _strict(schema["items"], root, f"{where}[]", within)
    return made


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition that a reference of pydantic's names."""
    found: Mapping[str, Any] = root["$defs"][reference.removeprefix("#/$defs/")]
    return found


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in names}
