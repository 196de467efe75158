"""The headers of an answer: what happened to the call, and what it cost."""

from __future__ import annotations

import math
import time

from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.faults import CallFault
from headgate.shared.job.result import Result

Headers = dict[str, str]


def facts(call: GatewayCall, result: Result) -> Headers:
    """Return what happened to the job of a call.

    `overhead-ms` is the time of the call without the job's wait in its queue and without its run.
    """
    elapsed_ms = (time.monotonic() - call.began) * 1000
    jobs_ms = (result.queued_ms or 0) + (result.latency_ms or 0)
    overhead = {"x-headgate-overhead-ms": str(max(0, round(elapsed_ms - jobs_ms)))}
    return {**job_headers(call, result.id), **of_result(result), **overhead}


def of_result(result: Result) -> Headers:
    """Return what happened to a job that has ended."""
    headers = {
        "x-headgate-job-id": result.id,
        "x-headgate-attempts": str(result.attempts),
        "x-headgate-cached": result.cached or "none",
        "x-headgate-fallback": "true" if result.fallback else "false",
        "x-headgate-queued-ms": str(result.queued_ms or 0),
    }
    if result.model_used is not None:
        headers["x-headgate-model-used"] = result.model_used
    if result.cost_usd is not None:
        headers["x-headgate-cost-usd"] = result.cost_usd
    return headers


def job_headers(call: GatewayCall, job_id: str) -> Headers:
    """Return what is known as soon as the call has its job."""
    return {**request_headers(call.request_id), "x-headgate-job-id": job_id}


def request_headers(request_id: str) -> Headers:
    """Return the id of a call by both names: the libraries of OpenAI and Anthropic differ."""
    return {"x-request-id": request_id, "request-id": request_id}


def of_fault(fault: CallFault, status: int, request_id: str) -> Headers:
    """Return the headers that say whether and when to ask again."""
    headers = request_headers(request_id)
    if fault.job_id is not None:
        headers["x-headgate-job-id"] = fault.job_id
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(fault.retry_after_s)))
    if not fault.retryable:
        headers["x-should-retry"] = "false"
    if status == 408:  # the rest of a slow body is not waited for
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers
