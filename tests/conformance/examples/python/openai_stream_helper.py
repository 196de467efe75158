"""A stream by the helper that gathers the whole completion."""

import os

from openai import OpenAI

client = OpenAI()

with client.chat.completions.stream(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[{"role": "user", "content": "Say this is a test"}],
    max_tokens=600,
) as stream:
    deltas = [event.delta for event in stream if event.type == "content.delta"]
    completion = stream.get_final_completion()

assert len(deltas) > 1
assert "".join(deltas) == completion.choices[0].message.content
