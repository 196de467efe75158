"""Errors arrive as the library's own exceptions, with code and request id."""

from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI

client = OpenAI()


def refusal(**fields: object) -> APIStatusError:
    """Return the error of a chat completion that must fail."""
    asked: dict[str, object] = {
        "model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}],
    }  # fmt: skip
    try:
        client.chat.completions.create(**{**asked, **fields})  # type: ignore[call-overload]
    except APIStatusError as error:
        return error
    raise AssertionError(f"{fields} was accepted")


unknown = refusal(model="no-such-model")
assert isinstance(unknown, NotFoundError)
assert unknown.code == "model_not_found"
assert unknown.request_id

wrong = refusal(messages=[])
assert isinstance(wrong, BadRequestError)
assert wrong.type == "invalid_request_error"

hot = refusal(temperature=7)
assert isinstance(hot, BadRequestError)
