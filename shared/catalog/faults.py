"""The text of a catalog's faults: keys as TOML writes them, and remedies in plain words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from headgate.shared.catalog.routing_rules import RoutingRule
from headgate.shared.catalog.schema import (
    Budget,
    CacheRule,
    Limits,
    Model,
    Pool,
    ProviderConfig,
    Tenant,
    Tier,
    User,
    WideLimits,
)
from headgate.shared.errors import CatalogError
from headgate.shared.field_faults import remedy_of

Path = Sequence[str | int]
#: Tables whose keys are vendors' names: always shown in quotes.
_QUOTED = {"models", "pools", "prices"}


class CatalogErrors(CatalogError):
    """Several keys are wrong; `errors` holds each of them, and the text has a line for each."""

    def __init__(self, errors: Iterable[CatalogError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.file, first.key, first.value, first.remedy)
        self.args = ("\n".join(str(error) for error in self.errors),)


class _Placeholder:
    """What an error shows instead of a value that is missing or may be a secret."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


MISSING = _Placeholder("(missing)")
HIDDEN = _Placeholder("(not shown, it may be a secret)")

OTHER_KIND = (
    "models of chat, embeddings and moderation cannot replace each other; name another model"
)

#: Remedies in the words of TOML, by the start of pydantic's kind of error.
_TYPES = {
    "tuple": "give a list",
    "frozen_set": "give a list",
    "model_type": "give a table",
    "dict": "give a table",
    "string_type": "give a text in quotes",
    "int": "give a whole number without quotes",
    "float": "give a number without quotes",
    "bool": "give true or false, without quotes",
    "date": "give a day without quotes, such as 2026-11-20",
}


def hint(name: object, known: Collection[str], before: str = "") -> str:
    """Return "did you mean NAME?" with the nearest known name; empty if none is near.

    `before` is put in front of the question.
    """
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"{before}did you mean {near[0]}?" if near else ""


def dotted(parts: Path) -> str:
    """Return the path of a key as TOML writes it: models."gpt-4o".fallback[1]."""
    path, before = "", ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif before in _QUOTED or not re.fullmatch(r"[A-Za-z0-9_-]+", part):
            path += f'."{part}"'
        else:
            path += f".{part}"
        before = str(part)
    return path.removeprefix(".")


def fault_from(
    form: type[BaseModel], own: Mapping[str, str], at: Path, detail: ErrorDetails
) -> tuple[Path, object, str]:
    """Return the path of the key, the value and the remedy of one error of pydantic.

    `own` holds the fields that the checker itself has added to an entry at the path `at`.
    """
    loc = [part for part in detail["loc"] if part not in own]
    value: object = detail["input"]
    kind, limits = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        inner = _INNER.get(str(at[0]), form) if len(loc) > 1 else form
        inner = Budget if "budget" in loc[:-1] else inner
        remedy = unknown(str(loc[-1]), keys_of(inner))
    elif kind == "missing":
        value, remedy = MISSING, "this key is required"
    elif kind == "string_pattern_mismatch":
        remedy = f"give a name that fits {limits['pattern']}"
    elif kind == "value_error":
        remedy = str(limits["error"])
    elif kind == "literal_error":
        remedy = f"use {limits['expected']}{hint(value, _words(limits['expected']), '; ')}"
    else:
        known = (words for start, words in _TYPES.items() if kind.startswith(start))
        remedy = next(known, remedy_of(detail))
        if loc and loc[-1] in _MEASURES and kind == "greater_than_equal":
            remedy += "; leave the key out for no limit"
    return [*at, *loc], value, remedy


_NAMED: dict[type[BaseModel], str] = {
    ProviderConfig: "name", Model: "name", Pool: "key", Tier: "name", Tenant: "name", User: "name",
}  # fmt: skip
"""The field that holds an entry's name; in TOML the name is that of the entry's table."""

_INNER: dict[str, type[BaseModel]] = {
    "tiers": Limits, "providers": WideLimits, "cache": CacheRule, "routing": RoutingRule,
}  # fmt: skip
_MEASURES = frozenset(WideLimits.model_fields) - {"burst_s"}


def keys_of(form: type[BaseModel]) -> list[str]:
    """Return the keys that a user may write in a table of this form."""
    hidden = _NAMED.get(form) or ("name" if form.__name__ == "Template" else None)
    fields = form.model_fields.items()
    return [key.alias or name for name, key in fields if name != hidden]


def unknown(key: str, known: Collection[str]) -> str:
    """Return the remedy for an unknown key."""
    return f"unknown key; use one of {', '.join(known)}{hint(key, known, '; ')}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']+)'", expected)
