"""A streamed chat completion, with usage at its end."""

import os

from openai import OpenAI

client = OpenAI()

stream = client.chat.completions.create(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[{"role": "user", "content": "Write a one-sentence bedtime story about a unicorn."}],
    max_tokens=100,
    stream=True,
    stream_options={"include_usage": True},
)

chunks = list(stream)
assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
assert len({chunk.id for chunk in chunks}) == 1
text = "".join(
    choice.delta.content or "" for chunk in chunks for choice in chunk.choices
)  # fmt: skip
assert text
ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
assert [end for end in ends if end] in (["stop"], ["length"])
usage = chunks[-1].usage
assert usage is not None
assert usage.completion_tokens > 0
assert all(chunk.usage is None for chunk in chunks[:-1])
