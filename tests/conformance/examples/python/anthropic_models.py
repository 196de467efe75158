"""The list of models in pages, and one of them, in Anthropic's form."""

from anthropic import Anthropic, NotFoundError

client = Anthropic()

models = list(client.models.list(limit=5))
assert "claude-haiku-4-5" in [model.id for model in models]
assert len({model.id for model in models}) == len(models) > 5
model = client.models.retrieve("claude-haiku-4-5")
assert (model.id, model.type) == ("claude-haiku-4-5", "model")
assert model.display_name
try:
    client.models.retrieve("no-such-model")
except NotFoundError as refused:
    code = refused.status_code
else:
    raise AssertionError("an unknown model was found")
assert code == 404
