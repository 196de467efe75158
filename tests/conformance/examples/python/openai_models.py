"""The list of models, and one of them."""

from openai import NotFoundError, OpenAI

client = OpenAI()

names = [model.id for model in client.models.list()]
assert "gpt-4o-mini" in names
model = client.models.retrieve("gpt-4o-mini")
assert (model.id, model.object) == ("gpt-4o-mini", "model")
try:
    client.models.retrieve("no-such-model")
except NotFoundError as refused:
    code = refused.code
else:
    raise AssertionError("an unknown model was found")
assert code == "model_not_found"
