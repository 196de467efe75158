"""Decides what happens to a request, without a socket. Clocks and chance are passed in."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import orjson

from headgate.workers.simulator.answers import compose, lengths
from headgate.workers.simulator.anthropic import errors as anthropic_errors
from headgate.workers.simulator.anthropic import replies as anthropic_replies
from headgate.workers.simulator.anthropic import requests as anthropic_requests
from headgate.workers.simulator.behaviour import Act, Behaviour, Bill, End
from headgate.workers.simulator.billing import SimulatedUsage, bill_usd
from headgate.workers.simulator.faults import FLOODS, Fault, FaultScript, pick, retry_after_text
from headgate.workers.simulator.floods import MARK
from headgate.workers.simulator.forms import (
    CHAT,
    EMBEDDINGS,
    MESSAGES,
    MODERATIONS,
    RESPONSES,
    Draft,
    Stamp,
    broken,
    fill,
)
from headgate.workers.simulator.limits import (
    SimulatedCharge,
    SimulatedPool,
    SimulatedPools,
    SimulatedRefusal,
)
from headgate.workers.simulator.openai import errors as openai_errors
from headgate.workers.simulator.openai import moderations as openai_moderations
from headgate.workers.simulator.openai import replies as openai_replies
from headgate.workers.simulator.openai import requests as openai_requests
from headgate.workers.simulator.prompt_cache import PromptCache
from headgate.workers.simulator.ramp import Ramps
from headgate.workers.simulator.rate_headers import styled
from headgate.workers.simulator.request import Invalid, Problem, SimulatedRequest, tokens_of
from headgate.workers.simulator.responses import requests as responses_requests
from headgate.workers.simulator.responses.record import SimulatedRecord
from headgate.workers.simulator.stats import SimulatorStats

MAX_BODY_BYTES = 32 * 1024 * 1024
READERS: dict[str, Callable[[dict[str, object]], SimulatedRequest]] = {
    CHAT: openai_requests.read_chat,
    EMBEDDINGS: openai_requests.read_embeddings,
    MESSAGES: anthropic_requests.read_messages,
    RESPONSES: responses_requests.read_response,
    MODERATIONS: openai_moderations.read,
}
JSON_TYPE, SSE_TYPE = "application/json", "text/event-stream; charset=utf-8"

REFUSALS = frozenset({"status", "quota", "slow_down", "flex", "context", "filter-400"})
ENDS: dict[str, End] = {"cut": "cut", "cut-body": "half-cut", "stall": "half-silent"}


class VendorErrors(Protocol):
    """The errors of one vendor: the modules `openai.errors` and `anthropic.errors`."""

    def problem(self, kind: str, model: str, until: str | None = None) -> Problem:
        """Return the error of a fault of this kind."""

    def invalid(self, message: str, param: str | None = None, code: str | None = None) -> Problem:
        """Return the refusal of a body that breaks a rule."""

    def bad_json(self) -> Problem:
        """Return the refusal of a body that is not JSON."""

    def unknown_model(self, model: str) -> Problem:
        """Return the refusal of a model that does not exist here."""

    def unknown_path(self, method: str, path: str) -> Problem:
        """Return the refusal of an address that does not exist."""

    def wrong_method(self, method: str, path: str) -> Problem:
        """Return the refusal of a method that the address does not take."""

    def too_large(self, limit_bytes: int) -> Problem:
        """Return the refusal of a body above the limit."""

    def wrong_key(self, given: str) -> Problem:
        """Return the refusal of a caller."""

    def over_limit(self, model: str, refusal: SimulatedRefusal) -> Problem:
        """Return the refusal of a request that its bucket cannot take now, or ever."""

    def error_body(self, error: Problem, request_id: str) -> bytes:
        """Return the JSON body of an error."""


def _errors_of(path: str) -> VendorErrors:
    return anthropic_errors if path == MESSAGES else openai_errors


class Engine:
    """The whole state of a simulator."""

    def __init__(
        self, behaviour: Behaviour, clock_s: Callable[[], float], epoch_s: Callable[[], float]
    ) -> None:
        self.behaviour = behaviour
        self.clock_s = clock_s
        self.epoch_s = epoch_s
        self.stats = SimulatorStats()
        self.script = FaultScript()
        self.prompt_cache = PromptCache()
        self.record = SimulatedRecord()
        self.pools = SimulatedPools(
            behaviour.limits, behaviour.burst_s, fixed=behaviour.fixed_windows
        )
        self.ramps = Ramps(behaviour.ramp, behaviour.burst_s)
        self._lengths = None
        if behaviour.output_tokens is not None:
            self._lengths = lengths(behaviour.output_tokens, behaviour.output_sigma)
        self._latency = random.Random(behaviour.seed)  # noqa: S311  repeatable, not secret
        self._chance = random.Random(behaviour.seed + 1)  # noqa: S311
        self._boot = f"{behaviour.seed & 0xFFFF:04x}{int(epoch_s() * 1000) & 0xFFFFFFFFFF:010x}"
        self._count = 0

    def decide(self, path: str, key: str, raw: bytes) -> Act:
        """Decide what happens to this request. It is counted and charged, but not yet billed."""
        errors = _errors_of(path)
        wanted = self.behaviour.key
        if wanted is not None and key != wanted:
            return self._refuse(path, errors.wrong_key(key), "authentication")
        draft = self._read(path, errors, key, raw)
        if isinstance(draft, Problem):
            return self._refuse(path, draft, "invalid_request")
        model = draft.ask.model
        self.stats.by_model[model] += 1
        self.stats.seen[draft.ask.digest] += 1
        if self.behaviour.strict_models and model not in self.behaviour.strict_models:
            return self._refuse(path, errors.unknown_model(model), "unknown_model", model)
        now_s = self.clock_s()
        pool = self.pools.of(model, path == MESSAGES, key if self.behaviour.per_key else "", now_s)
        charges = self._charges(path, draft)
        refused = self._over_limit(path, errors, draft, pool, charges, now_s)
        if refused is not None:
            return refused
        try:
            fault = self.script.next(draft.ask.text, model)
        except ValueError as wrong:
            return self._refuse(path, errors.invalid(str(wrong)), "invalid_request", model, pool)
        if fault is None and self.behaviour.rates:
            fault = pick(self.behaviour.rates, self._chance.random(), model, draft.ask.flex)
        self._accept(draft, pool, charges, now_s)
        if fault is None:
            return self._answer(path, draft, pool, key)
        self.stats.faults[fault.label] += 1
        self.stats.throughput[pool.label].faults[fault.label] += 1
        return self._fail(path, errors, draft, pool, fault, key)

    def refuse_path(self, method: str, path: str, anthropic_form: bool, exists: bool) -> Act:
        """Refuse an address that does not exist, or does not take this method."""
        form = MESSAGES if anthropic_form else CHAT
        errors = _errors_of(form)
        problem = (errors.wrong_method if exists else errors.unknown_path)(method, path)
        return self._refuse(form, problem, "not_found")

    def refuse_size(self, path: str) -> Act:
        """Refuse a body above 32 MB."""
        return self._refuse(path, _errors_of(path).too_large(MAX_BODY_BYTES), "too_large")

    def settle(self, act: Act) -> None:
        """Bill the answer: it is finished, delivered or not."""
        if act.bill is not None:
            self.stats.bill(act.bill.model, act.bill.digest, act.bill.usage, act.bill.usd)

    def reset(self) -> None:
        """Reset figures, prompt cache and counts of directives."""
        self.stats = self.stats.cleared()
        self.prompt_cache.forget()
        self.script.forget()

    def _read(self, path: str, errors: VendorErrors, key: str, raw: bytes) -> Draft | Problem:
        """Return the answer to this body, or why the vendor would refuse the body."""
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return errors.bad_json()
        try:
            if not isinstance(body, dict):
                raise Invalid("The body must be a JSON object.")
            if path == RESPONSES:
                body = self.record.with_history(key, body)
            return self._draft(path, READERS[path](body))
        except Invalid as wrong:
            return errors.invalid(wrong.message, wrong.param, wrong.code)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as wrong:
            return errors.invalid(f"The body has a part of the wrong shape ({wrong}).")

    def _draft(self, path: str, ask: SimulatedRequest) -> Draft:
        """Return the answer and its usage."""
        per_token = self.behaviour.chars_per_token
        input_tokens = tokens_of(ask.chars, per_token)
        if path in (EMBEDDINGS, MODERATIONS):
            return Draft(ask, [], SimulatedUsage(input_tokens), [])
        answers = [compose(ask, choice, per_token, self._lengths) for choice in range(ask.choices)]
        output = sum(answer.output_tokens for answer in answers)
        if path in (CHAT, RESPONSES):
            cached, prefixes = self.prompt_cache.automatic(ask.model, ask.text, per_token)
            usage = SimulatedUsage(input_tokens, output, min(cached, input_tokens))
            return Draft(ask, answers, usage, prefixes)
        if not ask.marks:
            return Draft(ask, answers, SimulatedUsage(input_tokens, output), [])
        read, short, long, prefixes = self.prompt_cache.marked(ask.model, ask.marks, per_token)
        usage = SimulatedUsage(input_tokens, output, read, short, long)
        return Draft(ask, answers, usage, prefixes)

    def _over_limit(
        self,
        path: str,
        errors: VendorErrors,
        draft: Draft,
        pool: SimulatedPool,
        charges: tuple[SimulatedCharge, ...],
        now_s: float,
    ) -> Act | None:
        """Charge the request to its buckets and return None, or refuse it."""
        model, throughput = draft.ask.model, self.stats.throughput[pool.label]
        if wait_s := self.ramps.wait_s(pool.label, now_s, draft.usage.input_tokens):
            throughput.refusals["ramp"] += 1
            slow_down = errors.problem("slow_down", model)
            problem = replace(slow_down, retry_after_s=f"{math.ceil(wait_s)}")
            return self._refuse(path, problem, "rate_limit_ramp", model, pool)
        refusal = pool.take(now_s, charges, self.behaviour.count_refused)
        if refusal is None:
            return None
        throughput.refusals[refusal.kind] += 1
        problem = errors.over_limit(model, refusal)
        return self._refuse(path, problem, f"rate_limit_{refusal.kind}", model, pool)

    def _accept(
        self,
        draft: Draft,
        pool: SimulatedPool,
        charges: tuple[SimulatedCharge, ...],
        now_s: float,
    ) -> None:
        """Count the request as let through."""
        self.ramps.take(pool.label, draft.usage.input_tokens)
        self.stats.throughput[pool.label].accept(now_s, self.epoch_s(), charges)
        self.stats.accepted += 1
        self.stats.tokens["charged"] += sum(one.amount for one in charges[1:])
        self.prompt_cache.remember(draft.prefixes)

    def _charges(self, path: str, draft: Draft) -> tuple[SimulatedCharge, ...]:
        if path == MESSAGES:
            return anthropic_replies.charges(draft.usage)
        return openai_replies.charges(draft.ask, draft.usage.input_tokens)

    def _answer(
        self, path: str, draft: Draft, pool: SimulatedPool, key: str, reported_tokens: int = 0
    ) -> Act:
        """Return the answer. `reported_tokens` of input, unless 0, are reported but not billed."""
        ask, bill = draft.ask, draft.usage
        usage = replace(bill, input_tokens=reported_tokens) if reported_tokens else bill
        delay_s = self._delay_s()
        act = Act(200, self._headers(path, pool, delay_s, ask.stream), delay_s=delay_s)
        act.model = ask.model
        fill(act, path, draft, usage, Stamp(self._id(), int(self.epoch_s()), key), self.record)
        vendor = "anthropic" if path == MESSAGES else "openai"
        usd = bill_usd(vendor, ask.model, bill, self.behaviour.prices)
        if usd is not None and ask.flex:
            usd /= 2  # as OpenAI's price list has it
        act.bill = Bill(ask.model, ask.digest, bill, usd)
        return act

    def _fail(
        self, path: str, errors: VendorErrors, draft: Draft, pool: SimulatedPool, fault: Fault,
        key: str,
    ) -> Act:  # fmt: skip
        """Answer as the fault says: with an error, or with a damaged or late answer."""
        model = draft.ask.model
        if fault.kind in REFUSALS or (fault.kind == "stream-error" and not draft.ask.stream):
            kind = {"status": str(fault.status), "stream-error": "500"}.get(fault.kind, fault.kind)
            problem = errors.problem(kind, model, fault.until)
            if fault.retry_after_s is not None or fault.retry_after_ms is not None:
                after_s = fault.retry_after_s
                if after_s is not None:
                    after_s = retry_after_text(after_s, self.epoch_s())
                problem = replace(
                    problem, retry_after_s=after_s, retry_after_ms=fault.retry_after_ms
                )
            # A vendor refuses at once, but fails only after it has tried.
            delay_s = self._delay_s() if problem.status >= 500 else 0.0
            act = self._error(path, problem, pool, delay_s + fault.delay_ms / 1000)
        else:
            act = self._damaged(path, draft, pool, fault, key)
        if fault.kind in FLOODS or fault.mb:
            act.flood = fault
        act.model, act.fault = model, fault.label
        return act

    def _damaged(self, path: str, draft: Draft, pool: SimulatedPool, fault: Fault, key: str) -> Act:
        """Return an answer that is damaged, late or a flood, as the fault says."""
        if fault.kind in ("filter", "empty"):
            changed = [replace(one, text="", tool_call=None, end="filter") for one in draft.answers]
            draft = replace(draft, answers=[] if _choiceless(path, fault) else changed)
        elif fault.kind in FLOODS:
            changed = [replace(one, text=MARK, tool_call=None) for one in draft.answers]
            draft = replace(draft, answers=changed)
        act = self._answer(path, draft, pool, key, fault.tokens)
        act.delay_s += fault.delay_ms / 1000
        act.end = ENDS.get(fault.kind, "whole")
        if fault.kind == "cut":
            act.bill = None
        elif fault.kind == "garbage":
            _garble(act)
        elif fault.kind == "stream-error" and act.events is not None:
            act.events = broken(path, act.events)
        return act

    def _refuse(
        self,
        path: str,
        problem: Problem,
        kind: str,
        model: str = "",
        pool: SimulatedPool | None = None,
    ) -> Act:
        """Count a refusal of this kind, and answer with the error."""
        self.stats.refusals[kind] += 1
        act = self._error(path, problem, pool, 0.0)
        act.model, act.refusal = model, kind
        return act

    def _error(
        self, path: str, problem: Problem, pool: SimulatedPool | None, delay_s: float
    ) -> Act:
        headers = self._headers(path, pool, delay_s, stream=False)
        if problem.retry_after_s is not None:
            headers["retry-after"] = problem.retry_after_s
        if problem.retry_after_ms is not None:
            headers["retry-after-ms"] = problem.retry_after_ms
        request_id = headers["request-id" if path == MESSAGES else "x-request-id"]
        body = _errors_of(path).error_body(problem, request_id)
        return Act(problem.status, headers, body, delay_s=delay_s)

    def _headers(
        self, path: str, pool: SimulatedPool | None, delay_s: float, stream: bool
    ) -> dict[str, str]:
        headers = {"content-type": SSE_TYPE if stream else JSON_TYPE}
        own = self.behaviour.headers == "bucket"
        if path == MESSAGES:
            headers["request-id"] = f"req_{self._id()}"
            limits = (
                anthropic_replies.limit_headers(pool, self.epoch_s(), own)
                if pool is not None
                else {}
            )
        else:
            headers["x-request-id"] = f"req_{self._id()}"
            headers["openai-version"] = "2020-10-01"
            headers["openai-processing-ms"] = str(int(delay_s * 1000))
            limits = openai_replies.limit_headers(pool, own) if pool is not None else {}
        if limits:
            headers.update(styled(limits, self.behaviour.headers, self._count, self.epoch_s()))
        return headers

    def _delay_s(self) -> float:
        """Draw the seconds to the answer: lognormal around the median, constant if sigma is 0."""
        median_ms, sigma = self.behaviour.latency_ms, self.behaviour.latency_sigma
        if not sigma:
            return median_ms / 1000
        return median_ms / 1000 * math.exp(sigma * self._latency.gauss(0.0, 1.0))

    def _id(self) -> str:
        """Return a new id."""
        self._count += 1
        return f"{self._boot}{self._count:010x}"


def _choiceless(path: str, fault: Fault) -> bool:
    # A message of Anthropic has no list of choices: an empty one has no content.
    return fault.kind == "empty" and path in (CHAT, RESPONSES)


def _garble(act: Act) -> None:
    """Make the body invalid JSON, though the headers say that it is JSON."""
    if act.events is None:
        act.body = act.body[: len(act.body) // 2]
    else:
        half = len(act.events) // 2
        act.events = [*act.events[:half], act.events[half][: len(act.events[half]) // 2] + b"\n\n"]
