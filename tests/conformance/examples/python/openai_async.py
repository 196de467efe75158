"""Several chat completions at once by the async client, on aiohttp."""

import asyncio
import os

from openai import AsyncOpenAI


async def main() -> None:
    """Ask ten times at once."""
    async with AsyncOpenAI() as client:

        async def ask(number: int) -> str:
            completion = await client.chat.completions.create(
                model=os.environ.get("MODEL", "gpt-4o-mini"),
                messages=[{"role": "user", "content": f"Say this is test {number}"}],
                max_tokens=50,
            )
            return completion.choices[0].message.content or ""

        answers = await asyncio.gather(*map(ask, range(10)))
    assert all(answers)
    assert len(set(answers)) == len(answers)


asyncio.run(main())
