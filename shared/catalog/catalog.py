"""The catalog: models, providers, pools, tiers and prices, read from TOML and checked as a whole.

A user's file overrides the built-in `catalog.toml` key by key. All faults are reported together,
each with file, key, value and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headgate.shared.catalog.faults import HIDDEN, OTHER_KIND, hint
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
from headgate.shared.catalog.variants import FINE_TUNED, variant
from headgate.shared.errors import CatalogError, InvalidRequest

MAX_VARIANTS = 10_000
"""Snapshots and fine-tunes that are remembered: callers choose their names."""

BUILT_IN = Path(__file__).with_name("catalog.toml")


class Catalog(CatalogModel):
    """The catalog in force; `load` builds it, and nothing changes it."""

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

    def model_post_init(self, _: object) -> None:
        """Make every table read-only, and tell each model the dialect of its provider."""
        for table in (
            "providers", "models", "pools", "tiers", "prices", "tenants", "users", "templates"
        ):  # fmt: skip
            self.__dict__[table] = MappingProxyType(self.__dict__[table])
        for model in self.models.values():
            if model.provider in self.providers:
                model.served_by(self.providers[model.provider])

    @cached_property
    def names(self) -> Mapping[str, Model]:
        """The models by both of their names, `gpt-4o` and `openai/gpt-4o`."""
        models = self.models.values()
        return {n: m for m in models for n in (m.name, f"{m.provider}/{m.name}")}

    @cached_property
    def variants(self) -> dict[str, Model]:
        """The snapshots and fine-tunes that were asked for, by name."""
        return {}

    @cached_property
    def chains(self) -> dict[str, tuple[Model | StaticText, ...]]:
        """The chains that were asked for, by the name of the first model."""
        return {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The built-in model classes, then those that only this catalog has."""
        own = {model.model_class for model in self.models.values()}
        return (*CLASSES, *sorted(own.difference(CLASSES)))

    def model(self, name: str, field: str = "model") -> Model:
        """Return the model of that name, `gpt-4o` or `openai/gpt-4o`.

        Snapshots and fine-tunes of the catalog's models count as models, see `variants.py`. Raises
        InvalidRequest, with `field` as the field at fault, for an unknown name.
        """
        found = self.names.get(name) or self._variant(name)
        if found is not None:
            return found
        remedy = "`headgate models` lists what there is" + hint(name, self.names, "; ")
        if name == "auto":
            remedy = "auto lets routing choose and is not a model; name a model here"
        elif name.startswith(FINE_TUNED):
            remedy = "a fine-tune is named ft:MODEL:..., with a MODEL of the catalog; " + remedy
        raise InvalidRequest(field, name, remedy, code="unknown_model")

    def _variant(self, name: str) -> Model | None:
        """Return the snapshot or fine-tune of that name, or None."""
        known = self.variants.get(name)
        if known is None:
            provider, slash, bare = name.rpartition("/")
            models = (m for m in self.models.values() if not slash or m.provider == provider)
            known = variant(bare, list(models))
            if known is not None:
                if len(self.variants) >= MAX_VARIANTS:
                    self.variants.clear()
                self.variants[name] = known
        return known

    def chain(
        self, model: Model, fallback: bool | Sequence[str] = True
    ) -> tuple[Model | StaticText, ...]:
        """Return the model and its fallbacks, in order and without repeats.

        `fallback` is the field of a request: True takes the model's own list, False the model
        alone, and a list takes these names. Fallbacks of fallbacks are not followed, so a caller
        who named a cheap model never gets one that its list does not name. Raises InvalidRequest
        for a name that is unknown or of another kind (chat, embeddings, moderation).
        """
        if fallback is False:
            return (model,)
        if fallback is not True:
            return tuple(dict.fromkeys([model, *self._named(model, fallback)]))
        known = self.chains.get(model.name)
        if known is None:
            known = self.chains[model.name] = tuple(dict.fromkeys(self._own_chain(model)))
        return known

    def _named(self, model: Model, names: Sequence[str]) -> Iterator[Model]:
        for i, name in enumerate(names):
            other = self.model(name, field=f"fallback[{i}]")
            if other.answer_kind != model.answer_kind:
                raise InvalidRequest(f"fallback[{i}]", name, OTHER_KIND)
            yield other

    def _own_chain(self, model: Model) -> Iterator[Model | StaticText]:
        yield model
        for name in model.fallback:
            if name.startswith(STATIC):
                yield StaticText(text=name.removeprefix(STATIC))
            else:
                yield self.model(name)

    def provider(self, model: Model) -> ProviderConfig:
        """Return the provider that serves the model."""
        return self.providers[model.provider]

    def tier(self, name: str) -> Tier:
        """Return the tier of that name; raises InvalidRequest for an unknown one."""
        if name not in self.tiers:
            remedy = f"no such tier; the catalog has {', '.join(self.tiers) or 'none'}"
            raise InvalidRequest("tier", name, remedy + hint(name, self.tiers, "; "))
        return self.tiers[name]

    def pool(self, model: Model) -> Pool:
        """Return the model's pool; one without limits if the catalog has no entry for it."""
        return self.pools.get(model.pool_key) or Pool(key=model.pool_key)


def load(overlay: Path | None = None) -> Catalog:
    """Read and check the built-in catalog, overridden by the file `overlay`.

    Raises CatalogError, or CatalogErrors for several faults. A test keeps the built-in file free of
    faults, so a fault is always one of the overlay.
    """
    built_in = _built_in()
    own = _read(overlay) if overlay else built_in
    content = overridden(built_in, own)
    tables = check(str(overlay or BUILT_IN), content, own)
    in_force = json.dumps(content, sort_keys=True, default=str)
    return Catalog(**vars(tables), digest=hashlib.sha256(in_force.encode()).hexdigest()[:12])


@cache
def _built_in() -> Mapping[str, Any]:
    """Return the content of the file that comes with the program; nobody changes it."""
    return _read(BUILT_IN)


def overridden(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `overlay`: tables are merged, other values replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = overridden(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _read(path: Path) -> dict[str, Any]:
    """Return the content of the TOML file; raises CatalogError with file and line."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        raise CatalogError(file, "file", file, "this is a folder; name a TOML file") from None
    except FileNotFoundError:
        raise CatalogError(file, "file", file, "there is no such file; check the path") from None
    except OSError as error:
        remedy = f"this file cannot be read: {error.strerror}"
        raise CatalogError(file, "file", file, remedy) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start : error.start + 1]
        remedy = "this is not UTF-8; save the file as UTF-8"
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
        raise CatalogError(file, f"line {line}", shown, f"this is not TOML: {error}") from error
