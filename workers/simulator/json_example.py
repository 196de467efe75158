"""Makes values that satisfy a JSON schema, as far as vendors support schemas."""

import math
from typing import Any

# The end for schemas that refer to themselves; vendors allow about this depth.
DEEPEST = 8
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor")


def example_of(schema: dict[str, Any], digest: bytes) -> Any:
    """Return a value that satisfies `schema`; the same for the same digest.

    An empty schema gives an object.
    """
    return _value(schema or {"type": "object"}, schema, digest, 0)


def _value(schema: Any, root: dict[str, Any], digest: bytes, depth: int) -> Any:
    if not isinstance(schema, dict):
        return None
    chance = digest[depth % len(digest)]
    if isinstance(reference := schema.get("$ref"), str):
        target = _referred(reference, root)
        return _value(target, root, digest, depth + 1) if depth < DEEPEST else None
    if "const" in schema:
        return schema["const"]
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[chance % len(choices)]
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(name), list) and options:
            # At the greatest depth take the last option: mostly it is null, which ends a recursion.
            return _value(options[-1 if depth >= DEEPEST else 0], root, digest, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[-1] if depth >= DEEPEST else kind[0]
    match kind:
        case "object":
            return _object(schema, root, digest, depth)
        case "array":
            least = int(schema.get("minItems", 0 if depth >= DEEPEST else 1))
            return [
                _value(schema.get("items", {}), root, _turned(digest, place), depth + 1)
                for place in range(least)
            ]
        case _:
            return _scalar(kind, schema, digest, chance)


def _object(
    schema: dict[str, Any], root: dict[str, Any], digest: bytes, depth: int
) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    wanted = schema.get("required", []) if depth >= DEEPEST else list(properties)
    return {
        name: _value(properties.get(name), root, _turned(digest, place), depth + 1)
        for place, name in enumerate(wanted)
    }


def _scalar(kind: Any, schema: dict[str, Any], digest: bytes, chance: int) -> Any:
    match kind:
        case "integer" | "number":
            return _number(schema, chance, kind == "integer")
        case "boolean":
            return chance % 2 == 0
        case "null":
            return None
    word = f"{WORDS[chance % len(WORDS)]}-{digest[:3].hex()}"
    word = word.ljust(int(schema.get("minLength", 0)), "x")
    return word[: int(schema["maxLength"])] if "maxLength" in schema else word


def _number(schema: dict[str, Any], chance: int, whole: bool) -> int | float:
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + 100)))
    middle = low + (high - low) * (chance + 1) / 257
    return math.ceil(middle) if whole else round(middle, 2)


def _referred(reference: str, root: dict[str, Any]) -> Any:
    target: Any = root
    for part in reference.lstrip("#/").split("/") if reference != "#" else ():
        target = target.get(part) if isinstance(target, dict) else None
    return target


def _turned(digest: bytes, places: int) -> bytes:
    places = (places + 1) % len(digest)
    return digest[places:] + digest[:places]
