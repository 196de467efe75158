"""Errors arrive as the library's own exceptions, with type and request id."""

from anthropic import Anthropic, APIStatusError, BadRequestError, NotFoundError

client = Anthropic()


def refusal(model: str, *contents: str) -> APIStatusError:
    """Return the error of a message that must fail."""
    try:
        client.messages.create(
            model=model,
            max_tokens=10,
            messages=[{"role": "user", "content": one} for one in contents],
        )
    except APIStatusError as error:
        return error
    raise AssertionError(f"{model} with {contents} was accepted")


unknown = refusal("no-such-model", "Hello")
assert isinstance(unknown, NotFoundError)
assert unknown.type == "not_found_error"
assert unknown.request_id

empty = refusal("claude-haiku-4-5")
assert isinstance(empty, BadRequestError)
assert empty.type == "invalid_request_error"
