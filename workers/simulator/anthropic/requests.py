"""Reads Anthropic's requests into a SimulatedRequest, or refuses them as Anthropic does."""

import hashlib
from typing import Any

import orjson

from headgate.workers.simulator.anthropic.thinking import thinks
from headgate.workers.simulator.request import (
    THINK,
    CacheMark,
    Invalid,
    Json,
    SimulatedRequest,
    Tool,
    count_field,
    digest_of,
    flag_field,
    messages_field,
    more_tools,
    number_field,
    stop_words,
    text_field,
    tool_to_call,
)

# An image of about a megapixel costs some 1,300 tokens. The simulator counts characters.
IMAGE_CHARS = 5200
BLOCKS = frozenset({
    "text", "image", "document", "search_result", "tool_use", "tool_result", "thinking",
    "redacted_thinking", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
    "code_execution_tool_result", "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result", "tool_search_tool_result", "container_upload",
    "mcp_tool_use", "mcp_tool_result", "compaction",
})  # fmt: skip


class _Prompt:
    """The prompt in the order in which it is cached (tools, system, messages), with its marks."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.chars = 0
        self.marks: list[tuple[int, int, Any]] = []
        self.last = ""

    def add(self, text: str, marked: Any = None, chars: int | None = None) -> None:
        self.texts.append(text)
        self.chars += len(text) if chars is None else chars
        if isinstance(marked, dict):
            self.marks.append((self.chars, len(self.texts), marked.get("ttl", "5m")))

    def cache_marks(self) -> tuple[CacheMark, ...]:
        """Return each mark with the digest of all text before it."""
        running, done = hashlib.blake2b(digest_size=16), 0
        found: list[CacheMark] = []
        for chars, count, ttl in self.marks:
            for text in self.texts[done:count]:
                running.update(text.encode() + b"\0")
            done = count
            found.append(CacheMark(chars, running.digest(), "1h" if ttl == "1h" else "5m"))
        return tuple(found)


def read_messages(body: Json) -> SimulatedRequest:
    """Read a message; raises Invalid where Anthropic would refuse it."""
    model = text_field(body, "model")
    # 0 only fills the cache. The simulator has no empty answers, so it answers with one token.
    max_tokens = 1 if body.get("max_tokens") == 0 else count_field(body, "max_tokens")
    if max_tokens is None:
        raise Invalid("Field required", param="max_tokens")
    number_field(body, "temperature", 1)
    number_field(body, "top_p", 1)
    prompt = _Prompt()
    tools = _add_tools(body, prompt)
    if (system := body.get("system")) is not None:
        _add_content(system, "system", prompt)
    messages = messages_field(body)
    _add_messages(messages, prompt)
    if isinstance(whole := body.get("cache_control"), dict):
        prompt.marks.append((prompt.chars, len(prompt.texts), whole.get("ttl", "5m")))
    digest = digest_of(body)
    answered = _answers_a_tool(messages[-1])
    form = body.get("output_format") or (body.get("output_config") or {}).get("format")
    tool = _tool_of(body, tools, prompt.last, digest, answered=answered)
    return SimulatedRequest(
        model=model,
        text="\n".join(prompt.texts),
        last=prompt.last,
        chars=prompt.chars,
        digest=digest,
        max_tokens=max_tokens,
        stream=flag_field(body, "stream"),
        wants_json=isinstance(form, dict) and form.get("type") == "json_schema",
        schema=form.get("schema") if isinstance(form, dict) else None,
        tool=tool,
        more_tools=more_tools(tools, tool, prompt.last),
        thinks=THINK in prompt.last,
        stop=stop_words(body.get("stop_sequences"), "stop_sequences"),
        marks=prompt.cache_marks(),
        reasons=thinks(body, max_tokens),
    )


def _tool_of(
    body: Json, tools: list[Tool], last: str, digest: bytes, *, answered: bool
) -> Tool | None:
    """Return the tool that the answer calls; None if it calls none."""
    choice = body.get("tool_choice") or {}
    kind = choice.get("type") if isinstance(choice, dict) else None
    may = kind in ("any", "tool") or (kind != "none" and not answered)
    named = str(choice.get("name")) if kind == "tool" else None
    return tool_to_call(tools if may else [], kind == "any", named, last, digest)


def _add_tools(body: Json, prompt: _Prompt) -> list[Tool]:
    tools: list[Tool] = []
    for position, one in enumerate(body.get("tools") or ()):
        is_set = isinstance(one, dict) and "toolset" in str(one.get("type"))
        if not is_set and not (isinstance(one, dict) and isinstance(one.get("name"), str)):
            raise Invalid("Field required", param=f"tools.{position}.name")
        if not is_set and one.get("type") in (None, "custom"):  # others it cannot call
            tools.append(Tool(one["name"], one.get("input_schema") or {}))
        prompt.add(orjson.dumps(one).decode(), one.get("cache_control"))
    return tools


def _add_messages(messages: list[Json], prompt: _Prompt) -> None:
    """Add all messages to the prompt, and remember the last text of the user."""
    for position, message in enumerate(messages):
        role = message["role"]
        if role not in ("user", "assistant", "system"):
            raise Invalid(f"Unexpected role {role!r}", param=f"messages.{position}.role")
        text = _add_content(message.get("content"), f"messages.{position}.content", prompt)
        if role == "user" and text:
            prompt.last = text


def _add_content(content: Any, where: str, prompt: _Prompt) -> str:
    """Add `content` to the prompt, block by block, and return its last text."""
    if isinstance(content, str):
        prompt.add(content)
        return content
    if not isinstance(content, list):
        raise Invalid("Input should be a valid string or list", param=where)
    last = ""
    for position, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in BLOCKS:
            raise Invalid(
                f"Input tag {kind!r} does not match any of the expected tags",
                param=f"{where}.{position}",
            )
        marked = block.get("cache_control")
        if kind == "text":
            if not isinstance(block.get("text"), str) or not block["text"]:
                raise Invalid("text content blocks must be non-empty", param=where)
            last = block["text"]
            prompt.add(last, marked)
        elif kind in ("image", "document"):
            name = hashlib.blake2b(orjson.dumps(block.get("source")), digest_size=16)
            prompt.add(name.hexdigest(), marked, chars=IMAGE_CHARS)
        else:
            part = block.get("content", block.get("input", block.get("thinking", "")))
            prompt.add(part if isinstance(part, str) else orjson.dumps(part).decode(), marked)
    return last


def _answers_a_tool(message: Json) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        block.get("type") == "tool_result" for block in content if isinstance(block, dict)
    )
