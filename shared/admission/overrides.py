"""How an operator's figures override the catalog's, as the scripts do it. Pure.

Limits and budgets of a scope are one text, such as `rpm=600 usd_per_day=5`. The catalog's texts and
the operator's are hashes of the same form, from scope to text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from headgate.shared.admission.scopes import EVERY_TENANT

LIFTED = "none"
"""The operator's figure for a limit that does not bind, whatever the catalog says."""


class Figure(NamedTuple):
    """A figure in force, as text; `is_set` if an operator has set it."""

    text: str
    is_set: bool


def overlay(catalog: str, operator: str) -> dict[str, Figure]:
    """Return the figures of a scope by name: the operator's override the catalog's one by one."""
    figures: dict[str, Figure] = {}
    for text, is_set in ((catalog, False), (operator, True)):
        for name, figure in re.findall(r"([a-z_]+)=(\S+)", text):
            if figure == LIFTED:
                figures.pop(name, None)
            else:
                figures[name] = Figure(figure, is_set)
    return figures


def texts_of(
    configured: Mapping[str, str], overrides: Mapping[str, str], scope: str
) -> tuple[str, str]:
    """Return the catalog's and the operator's text of a scope.

    A tenant without an entry in the catalog has those of `tenant/*`, before the operator's own.
    """
    catalog, operator = configured.get(scope), overrides.get(scope, "")
    if catalog is None and scope.startswith("tenant/"):
        catalog = configured.get(EVERY_TENANT)
        operator = f"{overrides.get(EVERY_TENANT, '')} {operator}"
    return catalog or "", operator
