"""Turn a caller's request into a checked job: fill in defaults, choose a model, count a ticket."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from headgate.producer.admin.reopen import with_new_deadline
from headgate.producer.submit.checks import (
    refuse_forbidden_webhook,
    refuse_misspelt_params,
    refuse_other_kind,
    refuse_too_expensive,
    refuse_too_long,
    refuse_unable,
)
from headgate.producer.submit.fields import RequestForm
from headgate.producer.submit.idempotency import body_sha256
from headgate.shared.admission import tiers
from headgate.shared.admission.ticket import Ticket, ticket_for
from headgate.shared.admission.tiers import TierOf
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.templates import expanded
from headgate.shared.cost.rates import price_lists_of
from headgate.shared.cost.tokens import input_tokens
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import json_bytes, refuse_oversize, unwritable
from headgate.shared.job.envelope import ENVELOPE_VERSION, SECOND_VERSION, Envelope
from headgate.shared.job.ids import new_id, now_ms
from headgate.shared.job.request import (
    AUTO,
    DEFAULT_DEADLINE_S,
    MAX_KEY_CHARACTERS,
    MAX_SAMPLES,
    Request,
    request_from,
)
from headgate.shared.job.responses_checks import length_param
from headgate.shared.routing import capabilities
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Route, Router, nothing_known
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.submit")


class Prepared(NamedTuple):
    """A checked job, the same as JSON, and its encoded ticket for the limits of its model."""

    envelope: Envelope
    encoded: bytes
    ticket: str


class Submitter:
    """Prepares requests by the settings and the catalog in force; writes to no server.

    `tier_of` finds the tier of a caller. `statuses` says which models are down or have no key.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        tier_of: TierOf | None = None,
        statuses: Callable[[], ModelStatus] = nothing_known,
    ) -> None:
        self._catalog = catalog
        self._router = Router(catalog, statuses)
        self._tier_of = tier_of or tiers.by_catalog(catalog)
        self._default_model = settings.model
        self._webhook_targets = settings.webhook_targets
        self._cache_policy = CachePolicy(
            CacheRuleIndex.of(catalog.cache.rules), settings.cache_ttl_s, settings.cache_temperature
        )
        self._warned: set[str] = set()
        self._default_params: dict[str, Any] = {}
        if settings.max_tokens is not None:
            self._default_params["max_tokens"] = settings.max_tokens
        if settings.temperature is not None:
            self._default_params["temperature"] = settings.temperature

    def prepare(
        self,
        given: RequestForm | Mapping[str, Any],
        *,
        batch_id: str | None = None,
        batch_line: int | None = None,
        custom_id: str | None = None,
        sample: int = 1,
    ) -> Prepared:
        """Return a job with a new id that every worker will accept; raise InvalidRequest if none.

        `batch_id`, `batch_line` and `custom_id` say which line of which batch it is; `sample`:
        which of the samples of the request.
        """
        request = _request_of(given)
        try:
            return self._prepared(request, batch_id, batch_line, custom_id, sample)
        except InvalidRequest:
            _refuse_large(request)  # whatever else is wrong with it
            raise

    def _prepared(
        self, request: Request, batch_id: str | None, batch_line: int | None,
        custom_id: str | None, sample: int,
    ) -> Prepared:  # fmt: skip
        if custom_id is not None and "\0" in custom_id:
            raise InvalidRequest("custom_id", custom_id, "leave out the NUL character")
        refuse_misspelt_params(request)
        refuse_forbidden_webhook(request.webhook_url, self._webhook_targets)
        body = "" if request.idempotency_key is None else body_sha256(request)
        request, model = self._filled_in(request, sample)
        envelope = Envelope(
            v=SECOND_VERSION if model.variant_of else ENVELOPE_VERSION,
            id=new_id(),
            request=request,
            model=model.name,
            model_class=model.model_class,
            submitted_at_ms=now_ms(),
            batch_id=batch_id,
            batch_line=batch_line,
            custom_id=custom_id,
            sample=sample,
            body_sha256=body,
        )
        return Prepared(envelope, _encoded(envelope), self._ticket(envelope, model).encode())

    def _filled_in(self, request: Request, sample: int) -> tuple[Request, Model]:
        """Return the request with all that it leaves out, and the model to ask first."""
        request = expanded(_with_own_key(request, sample), self._catalog.templates)
        model = self._model_of(request)
        return self._with_tier(self._with_default_params(request, model)), model

    def requested(self, given: RequestForm | Mapping[str, Any], *, sample: int = 1) -> Request:
        """Return the request as a job of it has it on record; raise InvalidRequest."""
        return self._filled_in(_request_of(given), sample)[0]

    def prepare_samples(
        self, given: RequestForm | Mapping[str, Any], samples: int = 1
    ) -> list[Prepared]:
        """Return a job for each of the samples of one request; raise InvalidRequest if none."""
        request = _request_of(given)
        refuse_samples(samples, request.answer_kind != "text")
        return [self.prepare(request, sample=k) for k in range(1, samples + 1)]

    def prepare_many(
        self, requests: Iterable[RequestForm | Mapping[str, Any]], samples: int = 1
    ) -> Iterator[Prepared]:
        """Prepare one request after the other, in order, each with all its samples.

        Raises InvalidRequest that names the field at fault as `requests[i].field`.
        """
        if isinstance(requests, str | bytes | Mapping | Request) or not isinstance(
            requests, Iterable
        ):
            raise InvalidRequest("requests", requests, "give a list of requests")
        checked_samples(samples)
        for i, given in enumerate(requests):
            if not isinstance(given, str | Mapping | Request):
                raise InvalidRequest(f"requests[{i}]", given, "give a text, a dict or a Request")
            try:
                prepared = self.prepare_samples(given, samples)
            except InvalidRequest as error:
                field = f"requests[{i}].{error.field}"
                raise InvalidRequest(field, error.value, error.remedy, error.code) from None
            yield from prepared

    def route(self, given: RequestForm | Mapping[str, Any]) -> Route:
        """Return which model "auto" would get for this request, and why; raise InvalidRequest."""
        return self._router.route(_request_of(given))

    def renewed(self, envelope: Envelope) -> tuple[Envelope, str]:
        """Return a failed job's envelope for a new try, and its ticket; raise InvalidRequest.

        Its deadline counts anew. A model that routing chose is chosen anew: its provider may have
        no key.
        """
        envelope = with_new_deadline(envelope)
        request = envelope.request
        if request.model_or(self._default_model) == AUTO:
            model = self._model_of(request)
            chosen = {"model": model.name, "model_class": model.model_class}
            envelope = envelope.model_copy(update=chosen)
        else:
            model = self._known_model("model", envelope.model)
        ticket = replace(self._ticket(envelope, model), paid=False)
        return envelope, ticket.encode()

    def _model_of(self, request: Request) -> Model:
        """Return the model to ask first; check it and the models of `fallback`."""
        field = "model" if request.model else "HEADGATE_MODEL"
        name = request.model_or(self._default_model)
        if name == AUTO:
            model = self._router.model(request, field)
        else:
            model = self._known_model(field, name)
            refuse_other_kind(field, model, request)
        if isinstance(request.fallback, list):
            for i, name in enumerate(request.fallback):
                field = f"fallback[{i}]"
                refuse_other_kind(field, self._known_model(field, name), request)
        return model

    def _known_model(self, field: str, name: str) -> Model:
        try:
            return self._catalog.model(name)
        except InvalidRequest as error:
            raise InvalidRequest(field, name, error.remedy, error.code) from None

    def _with_tier(self, request: Request) -> Request:
        """Add the tier of the caller. The job keeps this tier to its end."""
        if request.tier is not None:
            self._catalog.tier(request.tier)
            return request
        tier = self._tier_of(request.tenant, request.user)
        return request if tier is None else request.model_copy(update={"tier": tier})

    def _with_default_params(self, request: Request, model: Model) -> Request:
        """Add the params of the settings that the request leaves out and the model accepts."""
        if not self._default_params or request.answer_kind != "text":
            return request
        own = request.params
        length = length_param(request.dialect)
        given = {length if k == "max_tokens" else k: v for k, v in self._default_params.items()}
        missing = {k: v for k, v in given.items() if k not in own}
        if "max_completion_tokens" in own:
            missing.pop("max_tokens", None)
        takes_one = model.dialect == "anthropic" and own.get("top_p") is not None
        # Claude takes one of temperature and thinking, too.
        thinks = any(own.get(name) for name in ("thinking", "reasoning_effort", "reasoning"))
        takes_one = takes_one or (thinks and model.dialect == "anthropic")
        if "temperature" not in model.capabilities or takes_one:
            missing.pop("temperature", None)
        if request.dialect == "anthropic" and "temperature" in missing:
            missing["temperature"] = min(missing["temperature"], 1)
        return request.model_copy(update={"params": {**missing, **own}}) if missing else request

    def _ticket(self, envelope: Envelope, model: Model) -> Ticket:
        """Count what an attempt will take; raise InvalidRequest if the model cannot answer."""
        request, catalog = envelope.request, self._catalog
        needs = capabilities.needs_of(request, input_tokens(request, model))
        refuse_too_long(request, model, needs)
        refuse_unable(request, model, catalog, needs)
        refuse_too_expensive(request, model, catalog)
        if model.variant_of:
            self._warn_of_no_price(model)
        return ticket_for(
            envelope, model, catalog, tier=request.tier or "",
            paid=request.on_limit == "refuse", input_tokens=needs.input_tokens,
            chain=capabilities.chain(request, model, catalog, needs),
            cache_policy=self._cache_policy,
        )  # fmt: skip

    def _warn_of_no_price(self, model: Model) -> None:
        """Log once that the price of this snapshot or fine-tune is unknown, if it is."""
        if model.name in self._warned or price_lists_of(model, self._catalog):
            return
        self._warned.add(model.name)
        log.warning(
            "the price of %s is unknown: its jobs cost null and count as 0 USD; "
            'add [prices."%s"] to the catalog',
            model.name, model.name,
        )  # fmt: skip


def _request_of(given: RequestForm | Mapping[str, Any]) -> Request:
    if isinstance(given, Request):
        return given
    return request_from({"prompt": given} if isinstance(given, str) else dict(given))


def request_digest(request: Request) -> str:
    """Return what is equal for equal requests, however often and by whom they are tried.

    The tier is looked up and the deadline grows with a retry; neither counts.
    """
    return body_sha256(request.model_copy(update={"tier": None, "deadline_s": DEFAULT_DEADLINE_S}))


def _refuse_large(request: Request) -> None:
    """Raise InvalidRequest for a request of more than 10 MB."""
    try:
        encoded = json_bytes(request.model_dump(exclude_defaults=True))
    except (ValueError, RecursionError, InvalidRequest):
        return
    refuse_oversize(encoded)


def checked_samples(value: object) -> int:
    """Return the number of samples; raise InvalidRequest if it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SAMPLES:
        return value
    raise InvalidRequest("samples", value, f"give a whole number from 1 to {MAX_SAMPLES}")


def refuse_samples(samples: int, is_no_text: bool) -> None:
    """Raise InvalidRequest for several samples of an embedding or a moderation."""
    if samples > 1 and is_no_text:
        remedy = "an embedding is always the same, and so is a moderation; leave it out"
        raise InvalidRequest("samples", samples, remedy)


def _with_own_key(request: Request, sample: int) -> Request:
    """Return the request with the idempotency key of this sample: `KEY#2` for the second."""
    key = request.idempotency_key
    if sample == 1 or key is None:
        return request
    own = f"{key}#{sample}"
    if len(own) > MAX_KEY_CHARACTERS:
        remedy = f"shorten it; with samples it becomes {own[-8:]!r} at its end"
        raise InvalidRequest("idempotency_key", key, remedy)
    return request.model_copy(update={"idempotency_key": own})


def _encoded(envelope: Envelope) -> bytes:
    try:
        return envelope.encode()
    except (ValueError, RecursionError) as error:
        raise unwritable(envelope.request.metadata, error) from None
