"""The answer in the form of a pydantic model, by `chat.completions.parse`."""

import os

from openai import OpenAI
from pydantic import BaseModel


class CalendarEvent(BaseModel):
    """What the model is to find."""

    name: str
    date: str
    participants: list[str]


client = OpenAI()

completion = client.chat.completions.parse(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[
        {"role": "system", "content": "Extract the event information."},
        {"role": "user", "content": "Alice and Bob are going to a science fair on Friday."},
    ],
    response_format=CalendarEvent,
    max_tokens=400,
)

event = completion.choices[0].message.parsed
assert isinstance(event, CalendarEvent)
assert event.name
