"""A tool is used, its result is sent back, and the model answers; whole and as a stream."""

import os

from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam

client = Anthropic()
model = os.environ.get("MODEL", "claude-haiku-4-5")
user_message: MessageParam = {
    "role": "user",
    "content": "Use get_weather: what is the weather in SF?",
}
tools: list[ToolParam] = [
    {
        "name": "get_weather",
        "description": "Get the weather for a specific location",
        "input_schema": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    }
]

message = client.messages.create(
    model=model, max_tokens=300, messages=[user_message], tools=tools, tool_choice={"type": "any"}
)
assert message.stop_reason == "tool_use"
tool = next(block for block in message.content if block.type == "tool_use")
assert tool.name == "get_weather"
assert isinstance(tool.input["location"], str)

response = client.messages.create(
    model=model,
    max_tokens=300,
    messages=[
        user_message,
        {"role": message.role, "content": message.content},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": tool.id,
                    "content": [{"type": "text", "text": "The weather is 73f"}],
                }
            ],
        },
    ],
    tools=tools,
)
assert response.stop_reason in ("end_turn", "max_tokens")
assert response.content[0].type == "text"

with client.messages.stream(
    model=model, max_tokens=300, messages=[user_message], tools=tools, tool_choice={"type": "any"}
) as stream:
    streamed = stream.get_final_message()
used = next(block for block in streamed.content if block.type == "tool_use")
assert used.input == tool.input
