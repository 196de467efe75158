"""Errors arrive as the library's own exceptions, with type and request id."""

from anthropic import Anthropic, BadRequestError, NotFoundError

client = Anthropic()

try:
    client.messages.create(
        model="no-such-model", max_tokens=10, messages=[{"role": "user", "content": "Hello"}]
    )
except NotFoundError as refused:
    assert refused.type == "not_found_error"
    assert refused.request_id
else:
    raise AssertionError("an unknown model was found")

try:
    client.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=[])
except BadRequestError as refused:
    assert refused.type == "invalid_request_error"
else:
    raise AssertionError("no message was accepted")
