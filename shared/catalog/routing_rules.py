"""The part of a catalog that sends requests for `auto` to a model: its form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from headgate.shared.catalog.schema import CatalogModel, Text
from headgate.shared.job.request import Kind


class RoutingRule(CatalogModel):
    """Sends requests for `auto` that have one of these words, or are of these kinds, to a model.

    Where both are given, both must fit.
    """

    words: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    kinds: Annotated[tuple[Kind, ...], Field(strict=False)] = ()
    model: str

    @model_validator(mode="after")
    def _says_when(self) -> RoutingRule:
        if not self.words and not self.kinds:
            raise ValueError("give words or kinds: a rule without them would take everything")
        return self


class Routing(CatalogModel):
    """What `model: auto` goes by beside the models: rules, the first that fits counts."""

    rules: Annotated[tuple[RoutingRule, ...], Field(strict=False)] = ()
