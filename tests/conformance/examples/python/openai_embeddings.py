"""Embeddings of several texts; the library asks for base64."""

from openai import OpenAI

client = OpenAI()

reply = client.embeddings.create(
    model="text-embedding-3-small",
    input=["The food was delicious and the waiter...", "It rained."],
)
plain = client.embeddings.create(
    model="text-embedding-3-small", input="It rained.", encoding_format="float"
)

assert reply.object == "list"
assert [one.index for one in reply.data] == [0, 1]
assert len(reply.data[0].embedding) == len(plain.data[0].embedding) > 100
assert all(isinstance(number, float) for number in reply.data[0].embedding)
assert all(
    abs(one - other) < 1e-6
    for one, other in zip(reply.data[1].embedding, plain.data[0].embedding, strict=True)
)
assert reply.usage.total_tokens == reply.usage.prompt_tokens > 0
