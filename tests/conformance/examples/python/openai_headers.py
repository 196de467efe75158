"""Headers of an answer, by `with_raw_response`, and fields that the library does not know."""

from openai import OpenAI

client = OpenAI()

raw = client.chat.completions.with_raw_response.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "Say this is a test"}],
    max_tokens=40,
    extra_headers={"x-headgate-user": "someone"},
    extra_body={"headgate": {"priority": "interactive"}},
)
completion = raw.parse()

assert completion.choices[0].message.content
assert completion._request_id
assert raw.headers["x-request-id"] == completion._request_id
assert raw.headers["x-headgate-job-id"]
assert raw.headers["x-headgate-model-used"] == "gpt-4o-mini"
