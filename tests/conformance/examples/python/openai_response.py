"""A response, the next turn of its conversation, and both at their addresses later."""

import os

from openai import OpenAI

client = OpenAI()
model = os.environ.get("MODEL", "gpt-4o-mini")

first = client.responses.create(model=model, instructions="Be brief.", input="Tell me a joke.")
second = client.responses.create(
    model=model, previous_response_id=first.id, input="Explain why this is funny."
)
again = client.responses.retrieve(second.id)
items = client.responses.input_items.list(second.id)

assert first.status == second.status == "completed"
assert first.output_text
assert again.output_text == second.output_text
assert second.previous_response_id == first.id
assert [item.type for item in items.data][-1] == "message"
assert first.usage is not None
assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
client.responses.delete(first.id)
