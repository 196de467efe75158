"""A moderation of a text, of several texts, and of a text with an image."""

from openai import OpenAI

client = OpenAI()

one = client.moderations.create(input="I want to bake a cake.")
several = client.moderations.create(
    model="omni-moderation-latest", input=["I want to bake a cake.", "It rained."]
)
with_image = client.moderations.create(
    model="omni-moderation-latest",
    input=[  # type: ignore[arg-type]  # mypy sees no typed dicts in a union with sequences
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/image.png"}},
    ],
)

assert one.model.startswith("omni-moderation")
assert not one.results[0].flagged
assert 0 <= one.results[0].category_scores.violence <= 1
assert len(several.results) == 2
assert with_image.results[0].category_applied_input_types.violence == ["text", "image"]
