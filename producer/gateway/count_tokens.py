"""`POST /v1/messages/count_tokens`: the estimate by which limits and budgets are held."""

from __future__ import annotations

from typing import Any

from headgate.producer.dialects import anthropic
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost import tokens
from headgate.shared.job.request import AUTO, request_from


def count_tokens(catalog: Catalog, body: dict[str, Any]) -> int:
    """Return about how many input tokens the body has; raise InvalidRequest for a bad one.

    It is an estimate, made here and not by the vendor: see `shared/cost/tokens.py`.
    """
    request = request_from(dict(anthropic.message_fields({"max_tokens": 1, **body})))
    name = request.model or AUTO
    return tokens.input_tokens(request, None if name == AUTO else catalog.model(name))
