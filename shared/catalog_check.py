"""Checks a catalog as a whole: each entry against its form, then the entries against each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.catalog_form import STATIC, Limits, Model, Pool, Price, Provider, Tier
from shared.errors import CatalogError

F = TypeVar("F", bound=BaseModel)
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


class _Said:
    """Stands for a value in an error where there is none, or where it must not be shown."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


MISSING = _Said("(missing)")
HIDDEN = _Said("(not shown, it may be a secret)")

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


@dataclass
class Tables:
    """The entries that have passed, by name."""

    providers: dict[str, Provider] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    tiers: dict[str, Tier] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)


def check(file: str, content: Mapping[str, Any], own: Mapping[str, Any]) -> Tables:
    """The tables of a catalog; CatalogError, or CatalogErrors for several faults.

    `own`: the part of `content` that stands in `file`, where a circle is to be blamed.
    """
    checker = _Checker(file, content, own)
    checker.run()
    if len(checker.faults) > 1:
        raise CatalogErrors(checker.faults)
    if checker.faults:
        raise checker.faults[0]
    return checker.tables


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


class _Checker:
    def __init__(self, file: str, content: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.file = file
        self.content = content
        self.own = own
        self.tables = Tables()
        self.faults: list[CatalogError] = []

    def fault(self, parts: Path, value: object, remedy: str) -> None:
        # People do write the key itself where the name of its variable belongs.
        if parts[0] == "providers" and "key" in str(parts[2:]).lower():
            value = HIDDEN
        self.faults.append(CatalogError(self.file, dotted(parts), value, remedy))

    def run(self) -> None:
        """Every fault that can be told is in `faults`."""
        tables = self.tables
        known = tuple(vars(tables))
        for key, value in self.content.items():
            if key == "templates":
                self.fault([key], value, "templates do not stand yet; take this table out")
            elif key not in known:
                self.fault([key], value, _unknown(key, known))
        tables.providers = self.parsed("providers", Provider, lambda name: {"name": name})
        tables.models = self.parsed("models", Model, lambda name: {"name": name})
        tables.pools = self.parsed("pools", Pool, lambda name: {"key": name})
        tables.tiers = self.parsed("tiers", Tier, lambda name: {"name": name})
        tables.prices = self.parsed("prices", Price, lambda _: {})
        if not all(isinstance(self.content.get(table, {}), Mapping) for table in known):
            return  # what names what cannot be told
        for model in tables.models.values():
            self.check_model(model)
            self.check_fallback(model)
        self.check_circles()
        self.check_pools()
        for name in self.entries("prices"):
            self.check_model_name(["prices", name], name)
        for tier in tables.tiers.values():
            for name in tier.models:
                self.check_model_name(["tiers", tier.name, "models", name], name)

    def entries(self, table: str) -> Mapping[str, Any]:
        found = self.content.get(table, {})
        return found if isinstance(found, Mapping) else {}

    def parsed(self, table: str, form: type[F], given: Any) -> dict[str, F]:
        content = self.content.get(table, {})
        if not isinstance(content, Mapping):
            self.fault([table], content, f"give a table: [{table}.<name>]")
            return {}
        passed: dict[str, F] = {}
        for name, entry in content.items():
            if not isinstance(entry, Mapping):
                self.fault([table, name], entry, "give a table with keys of its own")
                continue
            own = given(name)
            for key in own.keys() & entry.keys():
                self.fault([table, name, key], entry[key], _unknown(key, _keys(form)))
            try:
                passed[name] = form.model_validate({**entry, **own})
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    if detail["type"] != "default_factory_not_called":
                        self.fault_of_form([table, name], form, own, detail)
        return passed

    def fault_of_form(
        self, at: list[str], form: type[BaseModel], own: Mapping[str, str], detail: ErrorDetails
    ) -> None:
        """One finding of pydantic, in the words of this catalog."""
        loc = [part for part in detail["loc"] if part not in own]
        value: object = detail["input"]
        kind, limits = detail["type"], detail.get("ctx", {})
        if kind == "extra_forbidden":
            inner = Limits if at[0] == "tiers" and len(loc) > 1 else form
            remedy = _unknown(str(loc[-1]), _keys(inner))
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
        self.fault([*at, *loc], value, remedy)

    def check_model(self, model: Model) -> None:
        at = ["models", model.name]
        providers = self.entries("providers")
        if model.name == "auto":
            self.fault(at, model.name, "auto is the word for routing; use another name")
        if model.provider not in providers:
            remedy = f"no such provider; use one of {', '.join(providers)}, or add it"
            remedy += hint(model.provider, providers, "; ")
            self.fault([*at, "provider"], model.provider, remedy)
        if model.embeds and (len(model.capabilities) > 1 or model.max_output_tokens):
            remedy = "a model that gives vectors has no max_output_tokens and no other capability"
            self.fault([*at, "capabilities"], sorted(model.capabilities), remedy)
        if not model.embeds and not 1 <= model.max_output_tokens <= model.context_tokens:
            remedy = f"give 1 to context_tokens ({model.context_tokens})"
            self.fault([*at, "max_output_tokens"], model.max_output_tokens or MISSING, remedy)
        if model.backoff_s and model.backoff_max_s and model.backoff_s > model.backoff_max_s:
            remedy = f"give at most backoff_max_s ({model.backoff_max_s:g})"
            self.fault([*at, "backoff_s"], model.backoff_s, remedy)

    def check_fallback(self, model: Model) -> None:
        for i, name in enumerate(model.fallback):
            at: Path = ("models", model.name, "fallback", i)
            if name.startswith(STATIC):
                if name == STATIC:
                    self.fault(at, name, "write the answer after static:")
                if model.embeds:
                    self.fault(at, name, "a text cannot stand in for vectors")
                if i + 1 < len(model.fallback):
                    remedy = f"is never reached: {STATIC} at [{i}] always answers; put that last"
                    self.fault((*at[:-1], i + 1), model.fallback[i + 1], remedy)
                return
            if not self.check_model_name(at, name):
                continue
            other = self.tables.models.get(name)
            if other and other.embeds != model.embeds:
                self.fault(at, name, "vectors and texts cannot stand in for each other")

    def check_model_name(self, at: Path, name: str) -> bool:
        models = self.entries("models")
        if name not in models:
            remedy = "no such model in the catalog; use one of its names, or add it"
            self.fault(at, name, remedy + hint(name, models, "; "))
        return name in models

    def check_circles(self) -> None:
        """A fallback that closes a circle is told once, where the user's file has written it."""
        done: set[str] = set()
        told: set[tuple[str, str]] = set()
        for start in self.tables.models:
            for circle in self.circles([start], done):
                steps = list(pairwise(circle))
                blamed = next((step for step in steps if self.writes_fallback(step[0])), steps[-1])
                if blamed in told:
                    continue
                told.add(blamed)
                name, following = blamed
                at = self.tables.models[name].fallback.index(following)
                remedy = f"goes in a circle: {' -> '.join(circle)}; take one of these out"
                self.fault(["models", name, "fallback", at], following, remedy)

    def writes_fallback(self, name: str) -> bool:
        models = self.own.get("models")
        return isinstance(models, Mapping) and "fallback" in models.get(name, {})

    def circles(self, path: list[str], done: set[str]) -> Iterator[list[str]]:
        model = self.tables.models.get(path[-1])
        if model is None or model.name in done:
            return
        for name in model.fallback:
            if name in path:
                yield [*path[path.index(name) :], name]
            else:
                yield from self.circles([*path, name], done)
        done.add(model.name)

    def check_pools(self) -> None:
        # An entry that did not pass may own the pool; only its own fault is then told.
        if self.tables.models.keys() != self.entries("models").keys():
            return
        known = {model.pool_key for model in self.tables.models.values()}
        for key in self.entries("pools"):
            if key not in known:
                remedy = "no model has this pool; write provider/pool" + hint(key, known, "; ")
                self.fault(["pools", key], key, remedy)


def _keys(form: type[BaseModel]) -> list[str]:
    hidden = {Provider: "name", Model: "name", Pool: "key", Tier: "name"}.get(form)
    fields = form.model_fields.items()
    return [key.alias or name for name, key in fields if name != hidden]


def _unknown(key: str, known: Collection[str]) -> str:
    return f"unknown key; use one of {', '.join(known)}{hint(key, known, '; ')}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']+)'", expected)
