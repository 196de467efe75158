"""The catalog: models, providers, pools, tiers and prices, read from TOML and checked as a whole.

The built-in `catalog.toml` lies beneath; a user's file is laid over it key by key. All faults that
can be found are reported at once, each with file, key, value and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import PrivateAttr

from headgate.shared.catalog.faults import HIDDEN, hint
from headgate.shared.catalog.routing_rules import Routing
from headgate.shared.catalog.schema import (
    CLASSES,
    STATIC,
    Budget,
    CacheRules,
    CatalogModel,
    Model,
    Pool,
    Price,
    ProviderConfig,
    StaticText,
    Tenant,
    Tier,
    User,
    WideLimits,
)
from headgate.shared.catalog.templates import Template
from headgate.shared.catalog.validate import check
from headgate.shared.errors import CatalogError, InvalidRequest

BUILT_IN = Path(__file__).with_name("catalog.toml")


class Catalog(CatalogModel):
    """All that is in force; built by `load`, never changed."""

    providers: Mapping[str, ProviderConfig] = {}
    models: Mapping[str, Model] = {}
    pools: Mapping[str, Pool] = {}
    tiers: Mapping[str, Tier] = {}
    prices: Mapping[str, Price] = {}
    tenants: Mapping[str, Tenant] = {}
    users: Mapping[str, User] = {}
    templates: Mapping[str, Template] = {}
    limits: WideLimits = WideLimits()
    budget: Budget = Budget()
    cache: CacheRules = CacheRules()
    routing: Routing = Routing()
    digest: str
    _names: dict[str, Model] = PrivateAttr(default_factory=dict)
    _chains: dict[str, tuple[Model | StaticText, ...]] = PrivateAttr(default_factory=dict)

    def model_post_init(self, _: object) -> None:
        """Every table is read-only and every model is found under both of its names."""
        for table in (
            "providers", "models", "pools", "tiers", "prices", "tenants", "users", "templates"
        ):  # fmt: skip
            self.__dict__[table] = MappingProxyType(self.__dict__[table])
        for model in self.models.values():
            self._names[model.name] = self._names[f"{model.provider}/{model.name}"] = model

    @property
    def classes(self) -> tuple[str, ...]:
        """The built-in model classes, then those which only this catalog has."""
        own = {model.model_class for model in self.models.values()}
        return (*CLASSES, *sorted(own.difference(CLASSES)))

    def model(self, name: str, field: str = "model") -> Model:
        """The model of that name, `gpt-4o` or `openai/gpt-4o`; InvalidRequest if there is none."""
        try:
            return self._names[name]
        except KeyError:
            remedy = "`headgate models` lists what there is" + hint(name, self._names, "; ")
            if name == "auto":
                remedy = "is the word for routing, which stands for no one model; name one"
            raise InvalidRequest(field, name, remedy, code="unknown_model") from None

    def chain(
        self, model: Model, fallback: bool | Sequence[str] = True
    ) -> tuple[Model | StaticText, ...]:
        """The model, then what to ask in its place, in order and without repeats.

        The model's own list and no other's: a caller who named a cheap model must not end up with
        one that its list does not name. `fallback` is what a request wishes: False for the
        model alone, names for just these; InvalidRequest if one is unknown or of another kind.
        """
        if fallback is False:
            return (model,)
        if fallback is not True:
            return tuple(dict.fromkeys([model, *self._wished(model, fallback)]))
        known = self._chains.get(model.name)
        if known is None:
            known = self._chains[model.name] = tuple(dict.fromkeys(self._asked_in_turn(model)))
        return known

    def _wished(self, model: Model, names: Sequence[str]) -> Iterator[Model]:
        for i, name in enumerate(names):
            other = self.model(name, field=f"fallback[{i}]")
            if other.embeds != model.embeds:
                remedy = "vectors and texts cannot stand in for each other"
                raise InvalidRequest(f"fallback[{i}]", name, remedy)
            yield other

    def _asked_in_turn(self, model: Model) -> Iterator[Model | StaticText]:
        yield model
        for name in model.fallback:
            if name.startswith(STATIC):
                yield StaticText(text=name.removeprefix(STATIC))
            else:
                yield self.model(name)

    def provider(self, model: Model) -> ProviderConfig:
        """Where the model is served."""
        return self.providers[model.provider]

    def tier(self, name: str) -> Tier:
        """The tier of that name; InvalidRequest if there is none."""
        if name not in self.tiers:
            remedy = f"no such tier; the catalog has {', '.join(self.tiers) or 'none'}"
            raise InvalidRequest("tier", name, remedy + hint(name, self.tiers, "; "))
        return self.tiers[name]

    def pool(self, model: Model) -> Pool:
        """The limits of the model's pool; one without limits where the catalog names none."""
        return self.pools.get(model.pool_key) or Pool(key=model.pool_key)


def load(overlay: Path | None = None) -> Catalog:
    """The built-in catalog with the file `overlay` laid over it, read and checked.

    Raises CatalogError, or CatalogErrors for more than one fault. The built-in file is sound (a
    test holds it to that), so that a fault is always the overlay's where there is one.
    """
    built_in = _read(BUILT_IN)
    own = _read(overlay) if overlay else built_in
    content = laid_over(built_in, own)
    tables = check(str(overlay or BUILT_IN), content, own)
    in_force = json.dumps(content, sort_keys=True, default=str)
    return Catalog(**vars(tables), digest=hashlib.sha256(in_force.encode()).hexdigest()[:12])


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key: tables are merged, everything else of `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _read(path: Path) -> dict[str, Any]:
    """What the TOML file says; CatalogError names file and line, or why it cannot be read."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        raise CatalogError(file, "file", file, "this is a folder; name a TOML file") from None
    except FileNotFoundError:
        raise CatalogError(file, "file", file, "there is no such file; name one") from None
    except OSError as error:
        raise CatalogError(file, "file", file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start : error.start + 1]
        remedy = "is not UTF-8; save the file as UTF-8"
        raise CatalogError(file, f"line {line}", byte, remedy) from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        lines = text.splitlines() or [""]
        line = int(at[1]) if at else len(lines)
        shown: object = lines[min(line, len(lines)) - 1].strip()
        if "key" in str(shown).lower():
            shown = HIDDEN
        raise CatalogError(file, f"line {line}", shown, f"is no TOML: {error}") from error
