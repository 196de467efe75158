"""How many tokens a message would have."""

from anthropic import Anthropic

client = Anthropic()

short = client.messages.count_tokens(
    messages=[{"role": "user", "content": "Hello, world"}], model="claude-haiku-4-5"
)
long = client.messages.count_tokens(
    messages=[{"role": "user", "content": "Hello, world. " * 100}],
    system="Be terse.",
    model="claude-haiku-4-5",
)

assert 0 < short.input_tokens < 50
assert long.input_tokens > short.input_tokens
