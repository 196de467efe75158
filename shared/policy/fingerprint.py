"""What makes two requests the same question: the key of the exact cache. Pure."""

from __future__ import annotations

import hashlib

import orjson

from shared.envelope import Request


def fingerprint(request: Request, model: str) -> str:
    """64 hexadecimal digits over all that can change the answer of `model`, tenant included.

    A prompt and the one user message of the same words are the same question; the order of keys
    does not matter, the order of messages does. Callers' own marks (user, priority, metadata,
    deadline) are left out, since no model sees them.
    """
    question = {
        "tenant": request.tenant,
        "model": model,
        "input": request.input,
        "messages": None if request.embeds else request.chat(),
        "params": request.params,
    }
    return hashlib.sha256(orjson.dumps(question, option=orjson.OPT_SORT_KEYS)).hexdigest()
