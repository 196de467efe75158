"""A moderation of a text, of several texts, and of a text with an image."""

from openai import OpenAI
from openai.types import ModerationImageURLInputParam, ModerationTextInputParam

client = OpenAI()

one = client.moderations.create(input="I want to bake a cake.")
several = client.moderations.create(
    model="omni-moderation-latest", input=["I want to bake a cake.", "It rained."]
)
text: ModerationTextInputParam = {"type": "text", "text": "What is this?"}
image: ModerationImageURLInputParam = {
    "type": "image_url",
    "image_url": {"url": "https://example.com/image.png"},
}
parts: list[ModerationImageURLInputParam | ModerationTextInputParam] = [text, image]
with_image = client.moderations.create(model="omni-moderation-latest", input=parts)

assert one.model.startswith("omni-moderation")
assert not one.results[0].flagged
assert 0 <= one.results[0].category_scores.violence <= 1
assert len(several.results) == 2
assert with_image.results[0].category_applied_input_types.violence == ["text", "image"]
