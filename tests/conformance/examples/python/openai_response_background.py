"""A response in the background: queued, polled, and a stream that breaks off and goes on."""

import os
import time

from openai import OpenAI

client = OpenAI()
model = os.environ.get("MODEL", "gpt-4o-mini")

response = client.responses.create(model=model, input="Write a poem.", background=True)
assert response.status in ("queued", "in_progress", "completed")
while response.status in ("queued", "in_progress"):
    time.sleep(0.2)
    response = client.responses.retrieve(response.id)
assert response.status == "completed"
assert response.output_text

seen, text, name = -1, "", ""
stream = client.responses.create(model=model, input="Write a song.", background=True, stream=True)
for event in stream:
    seen = event.sequence_number
    if event.type == "response.created":
        name = event.response.id
    if event.type == "response.output_text.delta":
        text += event.delta
        break
stream.close()
for event in client.responses.retrieve(name, stream=True, starting_after=seen):
    assert event.sequence_number == seen + 1
    seen = event.sequence_number
    if event.type == "response.output_text.delta":
        text += event.delta
assert text == client.responses.retrieve(name).output_text
