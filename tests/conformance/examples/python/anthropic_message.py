"""A message, as in the README of Anthropic's library."""

import os

from anthropic import Anthropic

client = Anthropic()

message = client.messages.create(
    max_tokens=200,
    system="Answer in one sentence.",
    messages=[{"role": "user", "content": "Hello, Claude"}],
    model=os.environ.get("MODEL", "claude-haiku-4-5"),
)

assert (message.type, message.role) == ("message", "assistant")
assert message.content[0].type == "text"
assert message.content[0].text
assert message.stop_reason in ("end_turn", "max_tokens")
assert message.usage.input_tokens > 0
assert message.usage.output_tokens > 0
