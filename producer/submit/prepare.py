"""From a caller's request to a queued job: check, envelope, row, then message; one or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from headgate.producer.submit.checks import (
    refuse_other_kind,
    refuse_too_dear,
    refuse_too_long,
    refuse_unable,
)
from headgate.producer.submit.idempotency import (
    body_sha256,
)
from headgate.shared.admission import tiers
from headgate.shared.admission.ticket import ticket_for
from headgate.shared.admission.tiers import TierOf
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.templates import expanded
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id, now_ms
from headgate.shared.job.request import AUTO, Request, request_from
from headgate.shared.routing import capabilities
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Route, Router, nothing_known
from headgate.shared.settings import Settings


class Prepared(NamedTuple):
    """A checked job, the same as JSON, and its ticket for the limits of its model."""

    envelope: Envelope
    encoded: bytes
    ticket: str


class Submitter:
    """Turns requests into envelopes by the settings and the catalog in force; touches no server."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        tier_of: TierOf | None = None,
        standing: Callable[[], ModelStatus] = nothing_known,
    ) -> None:
        self._catalog = catalog
        self._router = Router(catalog, standing)
        self._tier_of = tier_of or tiers.by_catalog(catalog)
        self._model = settings.model
        self._keeping = CachePolicy(
            CacheRuleIndex.of(catalog.cache.rules), settings.cache_ttl_s, settings.cache_temperature
        )
        self._params: dict[str, Any] = {}
        if settings.max_tokens is not None:
            self._params["max_tokens"] = settings.max_tokens
        if settings.temperature is not None:
            self._params["temperature"] = settings.temperature

    def prepare(
        self,
        fields: Mapping[str, Any] | Request,
        *,
        batch_id: str | None = None,
        batch_line: int | None = None,
        custom_id: str | None = None,
    ) -> Prepared:
        """A job with a fresh id that any worker will accept; raises InvalidRequest if not."""
        request = fields if isinstance(fields, Request) else request_from(dict(fields))
        if custom_id is not None and "\0" in custom_id:
            raise InvalidRequest("custom_id", custom_id, "leave out the NUL character")
        body = "" if request.idempotency_key is None else body_sha256(request)
        request = expanded(request, self._catalog.templates)
        model = self._model_of(request)
        request = self._with_tier(self._with_defaults(request, model))
        envelope = Envelope(
            id=new_id(),
            request=request,
            model=model.name,
            model_class=model.model_class,
            submitted_at_ms=now_ms(),
            batch_id=batch_id,
            batch_line=batch_line,
            custom_id=custom_id,
            body_sha256=body,
        )
        try:
            encoded = envelope.encode()
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("request", None, f"cannot be written as JSON: {error}") from None
        tokens = refuse_too_long(request, model)
        refuse_unable(request, model, self._catalog, tokens)
        if request.max_cost_usd is not None:
            refuse_too_dear(request, model, self._catalog)
        chain = capabilities.chain(request, model, self._catalog, tokens)
        ticket = ticket_for(
            envelope, model, self._catalog, tier=request.tier or "",
            paid=request.on_limit == "refuse", input_tokens=tokens, chain=chain,
            cache_policy=self._keeping,
        )  # fmt: skip
        return Prepared(envelope, encoded, ticket.encode())

    def prepare_many(
        self, requests: Iterable[str | Mapping[str, Any] | Request]
    ) -> Iterator[Prepared]:
        """One job after the other, in order; InvalidRequest names `requests[i].field`."""
        if isinstance(requests, (str, bytes, Mapping, Request)):
            raise InvalidRequest("requests", requests, "give a list of requests")
        for i, request in enumerate(requests):
            if isinstance(request, str):
                request = {"prompt": request}
            if not isinstance(request, (Mapping, Request)):
                raise InvalidRequest(f"requests[{i}]", request, "give a text, a dict or a Request")
            try:
                prepared = self.prepare(request)
            except InvalidRequest as error:
                field = f"requests[{i}].{error.field}"
                raise InvalidRequest(field, error.value, error.remedy, error.code) from None
            yield prepared

    def _model_of(self, request: Request) -> Model:
        field = "model" if request.model else "HEADGATE_MODEL"
        name = request.model or self._model
        if name == AUTO:
            model = self._router.model(request, field)
        else:
            model = self._known(field, name)
            refuse_other_kind(field, model, request)
        if isinstance(request.fallback, list):
            for i, name in enumerate(request.fallback):
                field = f"fallback[{i}]"
                refuse_other_kind(field, self._known(field, name), request)
        return model

    def _known(self, field: str, name: str) -> Model:
        try:
            return self._catalog.model(name)
        except InvalidRequest as error:
            raise InvalidRequest(field, name, error.remedy, error.code) from None

    def route(self, fields: Mapping[str, Any] | Request) -> Route:
        """Which model `auto` would get for this request, and why; raises InvalidRequest."""
        request = fields if isinstance(fields, Request) else request_from(dict(fields))
        return self._router.route(request)

    def _with_tier(self, request: Request) -> Request:
        """The request as its caller's tier makes it: its job has that tier to its end."""
        if request.tier is not None:
            self._catalog.tier(request.tier)
            return request
        tier = self._tier_of(request.tenant, request.user)
        return request if tier is None else request.model_copy(update={"tier": tier})

    def _with_defaults(self, request: Request, model: Model) -> Request:
        if not self._params or request.embeds:
            return request
        own = request.params
        missing = {k: v for k, v in self._params.items() if k not in own}
        if "max_completion_tokens" in own:
            missing.pop("max_tokens", None)
        if "temperature" not in model.capabilities:
            missing.pop("temperature", None)
        return request.model_copy(update={"params": {**missing, **own}}) if missing else request
