"""OpenAI's API description: schemas property by property, with examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from tests import ROOT

FILE = ROOT / "tests" / "data" / "openai-openapi.json"
DEEPEST = 12
JSON, EVENTS = "application/json", "text/event-stream"

Schema = dict[str, Any]

BY_NAME: dict[str, Any] = {
    "url": "https://example.com/a.png", "image_url": "https://example.com/a.png",
    "server_url": "https://example.com/mcp", "file_url": "https://example.com/a.pdf",
    "arguments": "{}", "schema": {"type": "object", "properties": {}},
    "parameters": {"type": "object", "properties": {}}, "call_id": "call_1", "index": 0,
    "output_index": 0, "content_index": 0, "sequence_number": 1,
}  # fmt: skip
"""Examples of properties whose schema does not say all that their values must be."""

NULL = frozenset({"error", "incomplete_details"})
"""Properties that a good answer has as null."""

_numbers = count(1)


@dataclass(frozen=True)
class Node:
    """An object at a place of a body: its schema, and how to reach it from the object above.

    `levels`: how many lists are around it there.
    """

    schema: Schema
    above: Node | None = None
    name: str = ""
    levels: int = 0

    @property
    def path(self) -> str:
        """The place in words, as `messages[].content[]`."""
        if self.above is None:
            return self.title
        before = self.above.path
        kind = f"({self.title})" if self.title else ""
        return f"{before}.{self.name}{'[]' * self.levels}{kind}"

    @property
    def root_name(self) -> str:
        """The property of the root that it is below; empty for the root."""
        if self.above is None:
            return ""
        return self.name if self.above.above is None else self.above.root_name

    @property
    def title(self) -> str:
        """The name of the schema."""
        return str(self.schema.get("$name", ""))

    @cached_property
    def properties(self) -> dict[str, Schema]:
        """The schemas of its properties."""
        return dict(self.schema.get("properties", {}))


class Description:
    """The addresses and schemas of the file."""

    def __init__(self) -> None:
        self._whole: dict[str, Any] = json.loads(FILE.read_text())

    def request(self, path: str) -> Schema:
        """The schema of the body that is sent to this address."""
        body = self._whole["paths"][path]["post"]["requestBody"]
        return self._whole_schema(body["content"][JSON]["schema"])

    def answer(self, path: str, method: str = "post", kind: str = JSON) -> Schema:
        """The schema of the answer of this address; `kind` is its media type."""
        answer = self._whole["paths"][path][method]["responses"]["200"]
        return self._whole_schema(answer["content"][kind]["schema"])

    def _whole_schema(self, schema: Schema) -> Schema:
        return self.resolved(schema)

    def resolved(self, schema: Schema) -> Schema:
        """The schema without references and `allOf` at its top; `$name` is its component."""
        while "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = {**self._whole["components"]["schemas"][name], "$name": name}
        if "allOf" not in schema:
            return schema
        whole = {key: value for key, value in schema.items() if key != "allOf"}
        for part in map(self.resolved, schema["allOf"]):
            whole = {
                **part, **whole,
                "properties": {**part.get("properties", {}), **whole.get("properties", {})},
                "required": [*part.get("required", ()), *whole.get("required", ())],
            }  # fmt: skip
        return whole

    def variants(self, schema: Schema) -> list[Schema]:
        """The kinds of value that the schema allows, without null."""
        schema = self.resolved(schema)
        among = schema.get("anyOf") or schema.get("oneOf")
        if among is None:
            return [] if schema.get("type") == "null" else [schema]
        found = [one for part in among for one in self.variants(part)]
        if not schema.get("properties"):
            return found
        base = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        return [base, *(one for one in found if one.get("properties"))]

    def nodes(self, root: Schema) -> Iterator[Node]:
        """Yield each object with properties once, beginning with the root's."""
        waiting, seen = [Node(one) for one in self.variants(root)], set[str]()
        while waiting:
            node = waiting.pop(0)
            key = node.title or node.path
            if key in seen or not node.properties:
                continue
            seen.add(key)
            yield node
            for name, schema in node.properties.items():
                waiting += self._below(node, name, schema, 0)

    def _below(self, above: Node, name: str, schema: Schema, levels: int) -> Iterator[Node]:
        for one in self.variants(schema):
            if one.get("type") == "array":
                yield from self._below(above, name, one.get("items", {}), levels + 1)
            elif one.get("properties"):
                yield Node(one, above, name, levels)

    def example(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """A value that the schema allows, as small as it can be."""
        found = self.variants(schema)
        return self.value(found[0], name, depth) if found and name not in NULL else None

    def value(self, one: Schema, name: str = "", depth: int = 0) -> Any:
        """A value of this kind."""
        if "const" in one or one.get("enum"):
            among = one.get("enum") or [one.get("const")]
            return "completed" if name == "status" and "completed" in among else among[0]
        match one.get("type"):
            case "object" if name not in BY_NAME:
                return self.least(one, depth)
            case "array":
                fewest = max(1, one.get("minItems", 1))
                return [self.example(one.get("items", {}), name, depth + 1) for _ in range(fewest)]
            case "boolean":
                return True
            case "integer" if name not in BY_NAME:
                return int(_between(one, 1))
            case "number":
                return _between(one, 0.5)
            case "string" if name not in BY_NAME:
                return _text(one)
        return BY_NAME.get(name, self.least(one, depth) if "properties" in one else "x")

    def least(self, one: Schema, depth: int = 0) -> dict[str, Any]:
        """An object with the properties that it must have, or with one entry if it has no own."""
        properties = one.get("properties", {})
        if not properties and isinstance(more := one.get("additionalProperties"), dict):
            return {"key": self.example(more, "key", depth + 1)}
        if depth > DEEPEST:
            return {}
        needed = [name for name in one.get("required", ()) if name in properties]
        if one.get("$name") == "Response":  # every vendor sends it, required or not
            needed.append("status")
        return {name: self.example(properties[name], name, depth + 1) for name in needed}


def _between(one: Schema, wanted: float) -> float:
    """Return the number, or the nearest that the schema allows."""
    least, most = float(one.get("minimum", wanted)), float(one.get("maximum", wanted))
    return max(least, min(wanted, most))


def _text(one: Schema) -> str:
    if one.get("format") == "uri":
        return "https://example.com/a"
    text = f"text-{next(_numbers)}"
    return text.ljust(one.get("minLength", 0), "x")[: one.get("maxLength", 1000)]
