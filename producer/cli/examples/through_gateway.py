"""Ask prompts through the gateway with the official clients: only the address is another.

    python through_gateway.py http://127.0.0.1:8080 prompts.jsonl 100

Prints one line of JSON: how many answered, by which client, how many came from the cache, and the
seconds that it took. The prompts are lines of OpenAI's batch format.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

AT_ONCE = 20

Fields = dict[str, Any]


async def main(url: str, file: str, many: int) -> None:
    """Ask so many of the prompts in the file, and print what came of it."""
    with Path(file).open(encoding="utf-8") as lines:  # noqa: ASYNC230  once, at the start
        asked = [call for call in (_call(json.loads(line)) for line in lines) if call is not None]
    # Both clients reach every model: here each asks for those of its own vendor.
    claude = [call for call in asked if "claude" in call["model"]][: many // 2]
    others = [call for call in asked if "claude" not in call["model"]]
    chosen = claude + others[: many - len(claude)]
    began = time.monotonic()
    turn = asyncio.Semaphore(AT_ONCE)
    openai = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    anthropic = AsyncAnthropic(base_url=url, api_key="none")

    async def ask(call: Fields) -> tuple[str, str]:
        async with turn:
            if "claude" in call["model"]:
                messages = anthropic.messages.with_raw_response
                raw = await messages.create(**_as_message(call))
                return "anthropic", raw.headers["x-headgate-cached"]
            other = await openai.chat.completions.with_raw_response.create(**call)
            return "openai", other.headers["x-headgate-cached"]

    async with openai, anthropic:
        ended = await asyncio.gather(*map(ask, chosen), return_exceptions=True)
    good = [one for one in ended if isinstance(one, tuple)]
    summary = {
        "asked": len(chosen),
        "answered": len(good),
        "openai": sum(client == "openai" for client, _ in good),
        "anthropic": sum(client == "anthropic" for client, _ in good),
        "cached": sum(cached == "exact" for _, cached in good),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(summary))  # noqa: T201  what the program is for


def _call(line: Fields) -> Fields | None:
    """Return the call of OpenAI's client for one line; None for an embedding."""
    fields = line.get("body", line)
    messages = fields.get("messages")
    if messages is None and "prompt" in fields:
        messages = [{"role": "user", "content": fields["prompt"]}]
    if messages is None:
        return None
    length = fields.get("max_tokens") or fields.get("params", {}).get("max_tokens", 200)
    whose = {"x-headgate-tenant": fields.get("tenant", "default")}
    return {
        "model": fields["model"], "messages": messages, "max_tokens": length,
        "extra_headers": whose,
    }  # fmt: skip


def _as_message(call: Fields) -> Fields:
    """Return the same call of Anthropic's client, which has the system prompt apart."""
    system = [one["content"] for one in call["messages"] if one["role"] == "system"]
    turns = [one for one in call["messages"] if one["role"] != "system"]
    fields = {**call, "messages": turns}
    return {**fields, "system": "\n\n".join(system)} if system else fields


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
