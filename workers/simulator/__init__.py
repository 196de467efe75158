"""A stand-in for the vendors over HTTP: `headgate simulate`.

Answers are a pure function of the request (model, messages and parameters, not how it travels);
only ids, times and what the prompt cache holds differ between two calls. Tokens are characters
divided by `--chars-per-token`, rounded up.

Billing: every answer that was finished is billed, also when it was then cut, garbled, stalled, or
its caller had gone; `/_stats` shows these again under `undelivered`. A stream is finished, for the
bill, when its first event leaves. Not billed: refusals, errors, a connection cut before the
headers, and a caller who left while the answer was still being made (counted as `cancelled`).

Order of decisions: key, body, model, growth, limits, fault, answer. A request that a fault meets
has been charged to its buckets, as vendors charge failed requests. Headers tell the buckets of that
moment, however late the answer comes.

Read in this order: ask (what is asked), answers, limits, ramp, faults, billing, flow; openai and
anthropic (the vendors' forms); engine (the decision); server (the wire).
"""
