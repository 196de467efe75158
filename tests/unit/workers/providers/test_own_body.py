"""A request in Anthropic's form goes to Claude as the caller gave it."""

from __future__ import annotations

from headgate.shared.job.request import Request
from headgate.workers.providers.anthropic_request import own_body

TEXT = {"type": "text", "text": "So it is."}
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
UNSIGNED = {"type": "thinking", "thinking": "Hm.", "signature": ""}
HI = {"role": "user", "content": "Hi"}


def sent(*blocks: dict[str, str]) -> object:
    """The content of an assistant's turn, as Claude gets it."""
    turn = {"role": "assistant", "content": [*blocks]}
    request = Request(dialect="anthropic", messages=[HI, turn, HI], params={"max_tokens": 5})
    body = own_body(request, "claude", 100)
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user"]
    return body["messages"][1]["content"]


def test_thinking_of_another_vendor_is_left_out_because_claude_refuses_it() -> None:
    assert sent(UNSIGNED, TEXT) == [TEXT]


def test_thinking_of_claude_stays_as_it_is() -> None:
    assert sent(SIGNED, TEXT) == [SIGNED, TEXT]


def test_a_turn_of_nothing_but_thinking_of_another_vendor_is_left_out() -> None:
    turn = {"role": "assistant", "content": [UNSIGNED]}
    request = Request(dialect="anthropic", messages=[HI, turn, HI], params={"max_tokens": 5})
    assert own_body(request, "claude", 100)["messages"] == [HI, HI]
