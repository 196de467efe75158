"""The addresses that no vendor has: figures, reset, rules, limits, health; and the model list."""

from dataclasses import asdict
from typing import Any

import orjson

from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.faults import parse_rules
from headgate.workers.simulator.limits import LimitTable, table_from

# Listed without --strict-models. Other names are answered too.
SHOWN_MODELS = (
    "gpt-4o-mini",
    "gpt-4o",
    "gpt-5-mini",
    "text-embedding-3-small",
    "omni-moderation-latest",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
)
CREATED = 1_735_689_600
METHODS = {
    "/health": "GET",
    "/_stats": "GET",
    "/_reset": "POST",
    "/_limits": "POST",
    "/_script": "POST",
    "/v1/models": "GET",
}


def admin(engine: Engine, path: str, raw: bytes, anthropic_form: bool) -> tuple[int, Any]:
    """Return status and JSON of one of the addresses in METHODS."""
    try:
        match path:
            case "/health":
                return 200, {"status": "ok"}
            case "/_stats":
                return 200, engine.stats.report()
            case "/_reset":
                engine.reset()
                return 200, {"reset": True}
            case "/_limits":
                table = table_from(orjson.loads(raw), engine.pools.table, "limits")
                engine.pools.change(table, engine.clock_s())
                return 200, shown_limits(table)
            case "/_script":
                engine.script.rules = parse_rules(orjson.loads(raw))
                return 200, {"rules": len(engine.script.rules)}
            case _:
                return 200, listed_models(engine, anthropic_form)
    except ValueError as wrong:
        return 400, {"error": {"message": str(wrong), "type": "invalid_request_error"}}


def shown_limits(table: LimitTable) -> dict[str, Any]:
    """Return the limits in force, in the form in which they are posted."""
    models = {name: asdict(limit) for name, limit in table.models.items()}
    return {**asdict(table.default), "models": models}


def listed_models(engine: Engine, anthropic_form: bool) -> dict[str, Any]:
    """Return the list of models in the form of the vendor that was asked."""
    names = engine.behaviour.strict_models or SHOWN_MODELS
    if anthropic_form:
        listed = [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "2025-01-01T00:00:00Z",
            }
            for name in names
        ]
        return {
            "data": listed,
            "has_more": False,
            "first_id": names[0],
            "last_id": names[-1],
        }
    listed_openai = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"}
        for name in names
    ]
    return {"object": "list", "data": listed_openai}
