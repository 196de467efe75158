"""The form of the catalog's routing rules, which choose the model of requests for `auto`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from headgate.shared.catalog.schema import CatalogModel, Text
from headgate.shared.job.request import Kind


class RoutingRule(CatalogModel):
    """Chooses `model` for a request that has one of these words and is of one of these kinds.

    An empty list of words or kinds fits every request; at least one of them is given.
    """

    words: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    kinds: Annotated[tuple[Kind, ...], Field(strict=False)] = ()
    model: str

    @model_validator(mode="after")
    def _require_a_condition(self) -> RoutingRule:
        if not self.words and not self.kinds:
            raise ValueError("give words or kinds; a rule without them fits every request")
        return self


class Routing(CatalogModel):
    """The rules for `model: auto`, in order: the first one that fits decides."""

    rules: Annotated[tuple[RoutingRule, ...], Field(strict=False)] = ()
