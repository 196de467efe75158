"""A chat completion, as in the README of OpenAI's library."""

import os

from openai import OpenAI

client = OpenAI()

completion = client.chat.completions.create(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[
        {"role": "developer", "content": "Talk like a pirate."},
        {"role": "user", "content": "How do I check if a Python object is an instance of a class?"},
    ],
    max_tokens=100,
)

assert completion.object == "chat.completion"
assert completion.choices[0].message.content
assert completion.choices[0].finish_reason in ("stop", "length")
assert completion.usage is not None
assert completion.usage.total_tokens == (
    completion.usage.prompt_tokens + completion.usage.completion_tokens
)
