"""`GET /v1/models`: the models of the catalog that the caller may name, in the caller's dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Any

from headgate.producer.callers.caller import Caller
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model

MOST = 1000
"""Models of one page in Anthropic's form, as Anthropic has it; 20 is its default."""


def models_of(catalog: Catalog, caller: Caller) -> list[Model]:
    """Return the models that the caller may name, by name."""
    allowed = caller.models
    found = (one for one in catalog.models.values() if allowed is None or one.name in allowed)
    return sorted(found, key=lambda one: one.name)


def one_model(catalog: Catalog, caller: Caller, name: str) -> Model:
    """Return the model of this name; raise CallRefused with 404 if the caller has none."""
    for model in models_of(catalog, caller):
        if name in (model.name, f"{model.provider}/{model.name}"):
            return model
    words = f"no model {name[:80]!r} for this key; GET /v1/models lists them"
    raise CallRefused("unknown_model", words, param="model")


def openai_form(model: Model) -> dict[str, Any]:
    """Return the model as OpenAI's API lists it."""
    return {
        "id": model.name, "object": "model", "created": int(_since(model).timestamp()),
        "owned_by": model.provider, "shutdown_date": None,
    }  # fmt: skip


def anthropic_form(model: Model) -> dict[str, Any]:
    """Return the model as Anthropic's API lists it."""
    return {
        "type": "model", "id": model.name, "display_name": model.name,
        "created_at": _since(model).isoformat().replace("+00:00", "Z"),
        "max_input_tokens": model.context_tokens, "max_tokens": model.max_output_tokens,
        "lifecycle": "active", "capabilities": None, "deprecated_at": None, "retires_at": None,
        "line": None,
    }  # fmt: skip


def openai_list(models: Iterable[Model]) -> dict[str, Any]:
    """Return the models as OpenAI's API lists them."""
    return {"object": "list", "data": [openai_form(one) for one in models]}


def anthropic_list(models: list[Model], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the models as Anthropic's API lists them.

    `query`: limit, after_id and before_id. Raises CallRefused with 400 for a bad one.
    """
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MOST):
        raise CallRefused(
            "invalid_request", f"limit: {limit[:80]!r}: give a number from 1 to {MOST}"
        )
    names = [one.name for one in models]
    first, last = 0, len(models)
    for field in ("after_id", "before_id"):
        if (name := query.get(field)) is None:
            continue
        if name not in names:
            raise CallRefused("invalid_request", f"{field}: {name[:80]!r}: no such model")
        if field == "after_id":
            first = names.index(name) + 1
        else:
            last = names.index(name)
    page = models[first:last]
    page = page[-int(limit) :] if "before_id" in query else page[: int(limit)]
    return {
        "data": [anthropic_form(one) for one in page],
        "has_more": len(page) < last - first,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def _since(model: Model) -> datetime:
    """Return when the catalog's figures of the model were checked: vendors' dates are not known."""
    checked = model.checked
    day = checked if checked is not None else datetime(1970, 1, 1, tzinfo=UTC).date()
    return datetime.combine(day, time(), UTC)
