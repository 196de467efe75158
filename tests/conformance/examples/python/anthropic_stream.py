"""A message in events, and by the helper that gathers it."""

import os

from anthropic import Anthropic

client = Anthropic()
model = os.environ.get("MODEL", "claude-haiku-4-5")

kinds = []
for event in client.messages.create(
    max_tokens=100,
    messages=[{"role": "user", "content": "Hello, Claude"}],
    model=model,
    stream=True,
):
    kinds.append(event.type)
assert kinds[:2] == ["message_start", "content_block_start"]
assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]

with client.messages.stream(
    max_tokens=100,
    messages=[{"role": "user", "content": "Say hello there!"}],
    model=model,
) as stream:
    text = "".join(stream.text_stream)
    message = stream.get_final_message()
assert message.content[0].type == "text"
assert message.content[0].text == text
assert message.stop_reason in ("end_turn", "max_tokens")
assert message.usage.output_tokens > 0
