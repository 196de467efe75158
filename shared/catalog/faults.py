"""How a fault of a catalog is told: keys as TOML writes them, and remedies in a user's words."""

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

Path = Sequence[str | int]
#: Their keys are names of other vendors' making and are always shown in quotes.
_QUOTED = {"models", "pools", "prices"}


class CatalogErrors(CatalogError):
    """Several keys are wrong; `errors` holds each, and the text has one line for each."""

    def __init__(self, errors: Iterable[CatalogError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.file, first.key, first.value, first.remedy)
        self.args = ("\n".join(str(error) for error in self.errors),)


class _Placeholder:
    """Stands for a value in an error where there is none, or where it must not be shown."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


MISSING = _Placeholder("(missing)")
HIDDEN = _Placeholder("(not shown, it may be a secret)")

#: How TOML calls what pydantic calls otherwise, by the start of its kind of error.
_TYPES = {
    "tuple": "give a list",
    "frozen_set": "give a list",
    "model_type": "give a table with keys of its own",
    "dict": "give a table with keys of its own",
    "string_type": "give a text in quotes",
    "int": "give a whole number without quotes",
    "float": "give a number without quotes",
    "bool": "give true or false, without quotes",
    "date": "give a day without quotes, such as 2026-11-20",
}


def hint(name: object, known: Collection[str], before: str = "") -> str:
    """Which known name is meant, perhaps; empty when none is near."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"{before}did you mean {near[0]}?" if near else ""


def dotted(parts: Path) -> str:
    """The path of a key as TOML writes it: models."gpt-4o".fallback[1]."""
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


def told(
    form: type[BaseModel], own: Mapping[str, str], at: Path, detail: ErrorDetails
) -> tuple[Path, object, str]:
    """One finding of pydantic: the path of its key, the value and the remedy."""
    loc = [part for part in detail["loc"] if part not in own]
    value: object = detail["input"]
    kind, limits = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        inner = _INNER.get(str(at[0]), form) if len(loc) > 1 else form
        inner = Budget if "budget" in loc[:-1] else inner
        remedy = unknown(str(loc[-1]), keys_of(inner))
    elif kind == "missing":
        value, remedy = MISSING, "this key is needed"
    elif kind == "string_pattern_mismatch":
        remedy = f"give a name that fits {limits['pattern']}"
    elif kind == "value_error":
        remedy = str(limits["error"])
    elif kind == "literal_error":
        remedy = f"use {limits['expected']}{hint(value, _words(limits['expected']), '; ')}"
    else:
        otherwise = detail["msg"].replace("Input should be", "give")
        remedy = next((w for start, w in _TYPES.items() if kind.startswith(start)), otherwise)
        if loc and loc[-1] in _MEASURES and kind == "greater_than_equal":
            remedy += "; leave the key out where nothing limits"
    return [*at, *loc], value, remedy


_NAMED: dict[type[BaseModel], str] = {
    ProviderConfig: "name", Model: "name", Pool: "key", Tier: "name", Tenant: "name", User: "name",
}  # fmt: skip
"""What an entry is called in its form; users write it as the name of the table."""

_INNER: dict[str, type[BaseModel]] = {
    "tiers": Limits, "providers": WideLimits, "cache": CacheRule, "routing": RoutingRule,
}  # fmt: skip
_MEASURES = frozenset(WideLimits.model_fields) - {"burst_s"}


def keys_of(form: type[BaseModel]) -> list[str]:
    """The keys that a user may write in a table of this form."""
    hidden = _NAMED.get(form) or ("name" if form.__name__ == "Template" else None)
    fields = form.model_fields.items()
    return [key.alias or name for name, key in fields if name != hidden]


def unknown(key: str, known: Collection[str]) -> str:
    """The remedy for a key that nobody reads."""
    return f"unknown key; use one of {', '.join(known)}{hint(key, known, '; ')}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']+)'", expected)
