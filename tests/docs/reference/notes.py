"""What the code does not say of itself: a sentence for each error code, request field and result field.

Each stands here once. A test holds the names against the code, and refuses a note for a field that has
a description in the code.
"""

from __future__ import annotations

ERROR_CODES = {
    "invalid_request": "A field of the request is wrong, or the provider refuses the request. Correct the request.",
    "unknown_model": "The catalog or the provider does not know the model. See `headgate models`.",
    "context_length": "The prompt does not fit into the context window of the model. Shorten it, or name another model.",
    "content_filtered": "The provider's filter refused the prompt or the answer. No other model is asked.",
    "authentication": "The provider does not accept the key. Check the variable that the catalog names.",
    "permission": "The key may not use this model, or not from this place.",
    "provider_quota": "The provider account is out of money or over its spending limit. The pool is shut: add money, "
    "then `headgate resume pool NAME`.",
    "rate_limited": "The provider refused the request because of a limit, and all retries are used up.",
    "overloaded": "The provider had too much to do, and all retries are used up.",
    "timeout": "No answer came within `HEADGATE_TIMEOUT_S` or the model's own `timeout_s`.",
    "connection": "The connection to the provider could not be opened, or broke.",
    "provider_error": "The provider failed by its own fault (HTTP 5xx).",
    "breaker_open": "The circuit breaker of the model is open, so it was not asked. Not counted as an attempt.",
    "invalid_output": "The provider's answer was empty or malformed.",
    "budget_exceeded": "The job would pass a budget or its own `max_cost_usd`. The message names budget and amounts.",
    "tier_limit": "A limit of the caller refused the request, which had `on_limit` set to `refuse`. Nothing was queued.",
    "deadline": "The deadline passed before an answer was there. The status is `expired`.",
    "cancelled": "Someone cancelled the job. The status is `cancelled`.",
    "unreadable": "The message on the queue was no job. It is kept as a dead letter.",
    "internal": "A fault of Headgate, or a job over which too many workers died. See the worker's log.",
}

REQUEST_FIELDS = {
    "prompt": "The question, as one user message.",
    "messages": "The conversation in OpenAI's form.",
    "input": "The text, or list of texts, to turn into vectors. The job is an embedding job.",
    "model": "A model of the catalog, such as `gpt-4o-mini` or `openai/gpt-4o-mini`, or `auto`. "
    "Default: `HEADGATE_MODEL`.",
    "params": "Parameters of the provider in its own form: `max_tokens`, `temperature`, `tools` and so on.",
    "priority": "How urgent the job is.",
    "tenant": "For whom the job runs: whose limits, budget, cache and bill.",
    "user": "The user of the tenant.",
    "tier": "The tier of the caller. Default: as `HEADGATE_TIERS` says.",
    "deadline_s": "Seconds after submission at which the answer becomes worthless. The job ends as `expired` then.",
    "cache": "`mode` (`exact` or `off`) and `ttl_s`, the seconds for which the answer may be used again.",
    "fallback": "Whether other models may answer, or the list of models to try.",
    "same_provider": "Keep the fallback chain to the provider of the first model.",
    "share": "Whether the job may use the call of an equal request in flight.",
    "stream": "Publish the text while the provider makes it.",
    "task": "The kind of request, as a hint for `auto`.",
    "prefer": "What `auto` optimises.",
    "max_usd_per_million": "With `auto`: the highest price per million tokens, for input and for output.",
    "max_cost_usd": "The most that all attempts of the job may cost together.",
    "template": "A named prompt of the catalog, in place of `prompt` and `messages`.",
    "variables": "The values of the template's variables.",
    "idempotency_key": "For 24 hours, the same key and the same request are the same job.",
    "on_limit": "At a limit of the caller: wait, or raise `TierLimit` at once.",
    "on_unknown": "After a crash that leaves the billing of an attempt unknown: ask again, or fail.",
    "metadata": "Anything of yours. It comes back in the result.",
}

RESULT_FIELDS = {
    "id": "The job id. It is the Celery task id, too.",
    "status": "How far the job is; the last four do not change any more. `deferred`: the job waits for a limit.",
    "model": "The model that was asked for, or that `auto` chose.",
    "content": "The text of the answer.",
    "embeddings": "The vectors of an embedding job, in place of `content`.",
    "model_used": "The model that answered.",
    "provider": "The provider that answered.",
    "finish_reason": "Why the answer ended, in OpenAI's words.",
    "tool_calls": "The calls of tools that the model asks for.",
    "usage": "Tokens of the answer.",
    "cost_usd": "What all attempts cost, as decimal text; null if a price is unknown.",
    "cached": "`exact`: from the cache. `shared`: from the call of an equal request. `semantic` is reserved.",
    "attempts": "How many requests to models the job made.",
    "fallback": "Whether another model than the first answered.",
    "batch_id": "The batch that the job belongs to.",
    "submitted_at": "When the job was submitted (RFC 3339, UTC).",
    "started_at": "When a worker first claimed the job.",
    "finished_at": "When the job ended.",
    "queued_ms": "Milliseconds from submission to the first claim.",
    "latency_ms": "Milliseconds from the first claim to the end.",
    "retry_at": "While `deferred`: when the job is expected to go on; null if only an operator can tell.",
    "trace_id": "The job id in the form of a W3C trace id.",
    "metadata": "The `metadata` of the request.",
    "error": "Why there is no answer: `code`, `message`, `retryable` and the failed `attempts`.",
}
