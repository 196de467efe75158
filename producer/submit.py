"""From a caller's request to a queued job: check, envelope, row, then message; one or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import redis
from sqlalchemy import Engine, insert
from sqlalchemy.exc import DBAPIError

from headgate.producer.able import refuse_other_kind, refuse_too_long, refuse_unable
from headgate.producer.dear import refuse_too_dear
from headgate.producer.errors import IdempotencyConflict, SubmitInterrupted
from headgate.producer.keyed import Keyed, Known, body_sha256, keyed, refuse_conflicts, take, unsent
from headgate.shared import scripts, tiers
from headgate.shared.catalog import Catalog, Model
from headgate.shared.database import passes, writing
from headgate.shared.envelope import Envelope, Request, new_id, now_ms, request_from
from headgate.shared.errors import InvalidRequest
from headgate.shared.keys import Keys
from headgate.shared.policy import needs
from headgate.shared.policy.lifetime import Keeping, Rules
from headgate.shared.policy.route import Standing
from headgate.shared.queues import message, queue_of, send
from headgate.shared.results import job_row
from headgate.shared.routing import AUTO, Route, Router, nothing_known
from headgate.shared.settings import Settings
from headgate.shared.tables import jobs
from headgate.shared.templates import expanded
from headgate.shared.ticket import ticket_for
from headgate.shared.tiers import TierOf

ROWS_PER_COMMIT = 500
"""Rows of one transaction; larger ones make the workers' commits wait too long."""


class Prepared(NamedTuple):
    """A checked job, the same as JSON, and its ticket for the limits of its model."""

    envelope: Envelope
    encoded: bytes
    ticket: str


Written = tuple[dict[str, Any], str, bytes, Keyed | None]
"""A job's row, its queue, its message, and its caller's key if it has one."""


class Submitter:
    """Turns requests into envelopes by the settings and the catalog in force; touches no server."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        tier_of: TierOf | None = None,
        standing: Callable[[], Standing] = nothing_known,
    ) -> None:
        self._catalog = catalog
        self._router = Router(catalog, standing)
        self._tier_of = tier_of or tiers.by_catalog(catalog)
        self._model = settings.model
        self._keeping = Keeping(
            Rules.of(catalog.cache.rules), settings.cache_ttl_s, settings.cache_temperature
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
        chain = needs.chain(request, model, self._catalog, tokens)
        ticket = ticket_for(
            envelope, model, self._catalog, tier=request.tier or "",
            paid=request.on_limit == "refuse", input_tokens=tokens, chain=chain,
            keeping=self._keeping,
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


def enqueue(
    engine: Engine,
    client: redis.Redis,
    keys: Keys,
    prepared: Iterable[Prepared],
    *,
    refuse: bool = True,
) -> dict[str, Known]:
    """Every job has its row and, after that, its message; see `put`.

    Raises SubmitInterrupted when a server is lost after the first row. A row without a message is
    sent by the workers' sweep.
    """
    ready = [written(*job) for job in prepared]
    return put(engine, client, keys, ready, refuse=refuse)


def written(envelope: Envelope, encoded: bytes, ticket: str) -> Written:
    """The job as it is put on record and on the broker.

    Plain dicts and tuples of plain values, which Python's collector does not track: with 20,000
    envelopes in memory it would take 40 % of the time.
    """
    row, claim = job_row(envelope, encoded), None
    if envelope.body_sha256:
        claim = keyed(envelope)
    return row, queue_of(envelope), message(envelope, encoded, ticket), claim


def put(
    engine: Engine,
    client: redis.Redis,
    keys: Keys,
    ready: Sequence[Written],
    *,
    refuse: bool = True,
) -> dict[str, Known]:
    """Every job is on record and queued, in transactions of 500; raises as `enqueue` does.

    Gives, by the ids of those that are not, the jobs that have their idempotency keys; with
    `refuse` it raises IdempotencyConflict if one of these asks for something else.
    A Redis that does not answer costs no job: it is asked before anything is written, so that a
    caller who hears RedisError may submit again and pays once.
    """
    if ready:
        client.ping()
    known: dict[str, Known] = {}
    done: list[str] = []
    for first in range(0, len(ready), ROWS_PER_COMMIT):
        chunk = ready[first : first + ROWS_PER_COMMIT]
        before, waiting = _record(engine, chunk, done, refuse)
        known.update(before)
        by_queue: dict[str, list[tuple[str, bytes]]] = {}
        for row, queue, text, _ in chunk:
            if row["id"] not in before:
                by_queue.setdefault(queue, []).append((row["id"], text))
        done += (before[i].job_id if i in before else i for i in _ids(chunk))
        try:
            for queue, pairs in by_queue.items():
                scripts.run(client, scripts.send(keys, queue, pairs))
            if waiting:
                send(client, keys, waiting)
        except redis.RedisError as error:
            raise SubmitInterrupted("Redis", str(error), done) from error
    return known


def _record(
    engine: Engine, chunk: Sequence[Written], done: list[str], refuse: bool
) -> tuple[dict[str, Known], list[tuple[Envelope, bytes]]]:
    """The chunk's rows are written, but for jobs that were there before: those, and of them the
    ones whose message may be missing."""
    rows = [row for row, *_ in chunk]
    claims = [claim for *_, claim in chunk if claim is not None]
    known: dict[str, Known] = {}
    waiting: list[tuple[Envelope, bytes]] = []
    committing = False
    try:
        with writing(engine) as connection:
            if claims:
                known = take(connection, claims)
                if refuse:
                    refuse_conflicts(claims, known)
                new = {row["id"] for row in rows}
                others = {other.job_id for other in known.values() if other.is_same} - new
                waiting = unsent(connection, others) if others else []
                rows = [row for row in rows if row["id"] not in known]
            if rows:
                connection.execute(insert(jobs), rows)
            committing = True
    except DBAPIError as error:
        if passes(error) and (committing or done):
            unsure = [row["id"] for row in rows] if committing else []
            raise SubmitInterrupted("the database", str(error.orig), done, unsure) from error
        raise
    except IdempotencyConflict as conflict:
        if done:
            raise IdempotencyConflict(conflict.key, conflict.job_id, done) from None
        raise
    return known, waiting


def _ids(ready: Iterable[Written]) -> list[str]:
    return [row["id"] for row, *_ in ready]
