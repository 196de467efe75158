"""The arguments of a tool call come in pieces."""

import json
import os

from openai import OpenAI

client = OpenAI()

stream = client.chat.completions.create(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[{"role": "user", "content": "What is the weather like in Paris today?"}],
    tools=[
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {
                    "type": "object",
                    "properties": {"location": {"type": "string"}},
                    "required": ["location"],
                },
            },
        }
    ],
    tool_choice={"type": "function", "function": {"name": "get_weather"}},
    max_tokens=200,
    stream=True,
)

name, arguments, end = "", "", None
for chunk in stream:
    for choice in chunk.choices:
        end = choice.finish_reason or end
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            if call.function is not None:
                name += call.function.name or ""
                arguments += call.function.arguments or ""

assert name == "get_weather"
assert isinstance(json.loads(arguments)["location"], str)
assert end in ("tool_calls", "stop")
