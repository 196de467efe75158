"""A tool is called, its result is sent back, and the model answers."""

import json
import os

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

client = OpenAI()
model = os.environ.get("MODEL", "gpt-4o-mini")
tools: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get current temperature for a given location.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string"}},
                "required": ["location"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
]
messages: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Call get_weather: what is the weather like in Paris today?"}
]

completion = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="required", max_tokens=200
)
choice = completion.choices[0]
assert choice.finish_reason == "tool_calls"
assert choice.message.tool_calls is not None
call = choice.message.tool_calls[0]
assert call.type == "function"
assert call.function.name == "get_weather"
assert isinstance(json.loads(call.function.arguments)["location"], str)

messages.append(choice.message.to_dict())  # type: ignore[arg-type]  # as the guide does
messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"celsius": 14}'})
answer = client.chat.completions.create(
    model=model, messages=messages, tools=tools, max_tokens=100
)  # fmt: skip
assert answer.choices[0].message.content
