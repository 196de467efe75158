"""Snapshots and fine-tunes: names of models that run although the catalog does not list them.

A snapshot is the vendor's id of a model and a date or `latest`, such as `gpt-4o-mini-2024-07-18`.
A fine-tune is `ft:`, the model or a snapshot of it, and the vendor's words, such as
`ft:gpt-4o:acme::1`. Both take all but the name from the model of the catalog: provider, class,
pool, window, capabilities and fallbacks. OpenAI counts fine-tunes on the limits of the model that
they were made from (guide "Rate limits"). The full name is sent, and prices are looked up by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headgate.shared.catalog.schema import Model

FINE_TUNED = "ft:"

#: A date as the vendors write it (2024-07-18, 20251001, 03-2025), or `latest`.
_SNAPSHOT = re.compile(r"(.+?)[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{2}-\d{4}|latest)", re.ASCII)
_FINE_TUNE = re.compile(r"ft:([^:]+):.+", re.ASCII)
#: The names that the catalog takes (`Named` in schema.py): they become part of Redis keys.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}", re.ASCII)


def variant(name: str, models: Iterable[Model]) -> Model | None:
    """Return the snapshot or fine-tune of that name; None if it is of none of these models."""
    if _NAME.fullmatch(name) is None:
        return None
    if fine_tune := _FINE_TUNE.fullmatch(name):
        origin = fine_tune[1]
        base = _named(origin, models) or _snapshot_of(origin, models)
    else:
        base = _snapshot_of(name, models)
    return None if base is None else base.variant(name)


def _snapshot_of(name: str, models: Iterable[Model]) -> Model | None:
    found = _SNAPSHOT.fullmatch(name)
    if found is None:
        return None
    stem, is_latest = found[1], name.endswith("latest")
    return _named(stem, models) or (_newest(stem, models) if is_latest else None)


def _newest(stem: str, models: Iterable[Model]) -> Model | None:
    """Return the newest model of the stem and a month, such as `mistral-small-2603`."""
    dated = (m for m in models if re.fullmatch(rf"{re.escape(stem)}-\d{{4}}", m.provider_name))
    return max(dated, key=lambda model: model.provider_name, default=None)


def _named(stem: str, models: Iterable[Model]) -> Model | None:
    """Return the model whose vendor's id is the stem, or a snapshot of it.

    A model under a name of the operator's own does not count: the vendor knows no such name.
    """
    for model in models:
        if stem == model.provider_name:
            return model
        pinned = model.provider_name.removeprefix(stem)
        if stem == model.name and pinned != model.provider_name:
            return model
    return None
