"""Thinking comes in a block of its own, signed."""

from anthropic import Anthropic

client = Anthropic()

message = client.messages.create(
    model="claude-haiku-4-5",
    max_tokens=3200,
    thinking={"type": "enabled", "budget_tokens": 1600},
    messages=[{"role": "user", "content": "Create a haiku about Anthropic."}],
)
assert [block.type for block in message.content] == ["thinking", "text"]

with client.messages.stream(
    model="claude-haiku-4-5",
    max_tokens=3200,
    thinking={"type": "enabled", "budget_tokens": 1600},
    messages=[{"role": "user", "content": "Create a haiku about queues."}],
) as stream:
    kinds = [event.type for event in stream]
    streamed = stream.get_final_message()
assert "thinking" in kinds
assert "signature" in kinds
assert streamed.content[0].type == "thinking"
assert streamed.content[0].signature
