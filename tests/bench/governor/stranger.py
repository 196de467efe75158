"""A program that knows nothing of us and uses the same key: bare calls at random moments.

`python -m tests.bench.governor.stranger openai|anthropic URL MODEL MAX_TOKENS PER_S LOG` asks
until it is killed and writes a line `unix-seconds status` for each call. It asks nothing twice.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import TextIO

import aiohttp

from tests.bench.governor.prompts import CHARS_PER_TOKEN, lengths

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


async def _ask(
    session: aiohttp.ClientSession, url: str, model: str, max_tokens: int, text: str, log: TextIO
) -> None:
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "max_tokens": max_tokens, "messages": messages}
    at_s = time.time()
    async with session.post(url, json=body) as reply:
        log.write(f"{at_s:.3f} {reply.status}\n")
        log.flush()
        await reply.read()


async def _loop(url: str, model: str, max_tokens: int, per_s: float, log: TextIO) -> None:
    chance = random.Random(11)  # noqa: S311  repeatable, not secret
    sizes = lengths(chance)
    number, under_way = 0, set[asyncio.Task[None]]()
    next_s = time.monotonic()
    async with aiohttp.ClientSession() as session:
        while True:
            next_s += chance.expovariate(per_s)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            number += 1
            text = f"stranger {number} ".ljust(next(sizes) * CHARS_PER_TOKEN, "z")
            task = asyncio.create_task(_ask(session, url, model, max_tokens, text, log))
            under_way.add(task)
            task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    kind, base, model, most, rate, path = sys.argv[1:]
    with Path(path).open("w") as opened:
        asyncio.run(_loop(base + PATHS[kind], model, int(most), float(rate), opened))
