"""A stand-in for the vendors over HTTP: `headgate simulate`.

Answers are a pure function of the request: of its model, messages and parameters. Only ids, times
and the state of the prompt cache differ between two calls. Tokens are characters divided by
`--chars-per-token`, rounded up.

Billing: every finished answer is billed, also if it was then cut, garbled or stalled, or if its
caller had gone. `/_stats` shows such answers under `undelivered` too. A stream counts as finished
when its first event is sent. Refusals, errors and connections that are cut before the headers are
not billed. Nor are callers who leave before the answer is finished: they count as `cancelled`.

Order of decisions: key, body, model, growth, limits, fault, answer. A request with a fault is
charged to its buckets, as vendors charge failed requests. Headers show the buckets of that moment,
however late the answer comes.

Read in this order: request, answers, limits, ramp, faults, billing, throughput; openai and
anthropic (the vendors' forms); engine (the decision); server (HTTP).
"""
