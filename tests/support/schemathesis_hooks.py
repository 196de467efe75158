"""Hooks of schemathesis: most bodies name a model that there is, so that calls become jobs."""

from __future__ import annotations

from typing import Any

import schemathesis

MODELS = {
    "/v1/chat/completions": "gpt-4o-mini",
    "/v1/responses": "gpt-4o-mini",
    "/v1/messages": "claude-haiku-4-5",
    "/v1/messages/count_tokens": "claude-haiku-4-5",
    "/v1/embeddings": "text-embedding-3-small",
    "/v1/moderations": "omni-moderation-latest",
    "/v1/jobs": "gpt-4o-mini",
}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Return the body with a model of the catalog in the place of three names in four."""
    known = MODELS.get(context.operation.path)
    name = body.get("model") if isinstance(body, dict) else None
    if known is None or not isinstance(name, str) or len(name) % 4 == 0:
        return body
    return {**body, "model": known}
