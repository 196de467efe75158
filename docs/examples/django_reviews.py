"""Django: reviews that a model sorts, as objects, and an answer as server-sent events.

    pip install django
    python django_reviews.py runserver

It is one file; in a project of yours the parts stand in settings, views and urls.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from typing import Literal

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path
from pydantic import BaseModel

from headgate import Client, JobFailed

client = Client()  # one for each process; it opens its connections at the first use


class Review(BaseModel):
    """What the model is to find in a review."""

    mood: Literal["good", "bad", "mixed"]
    summary: str


def sort_reviews(request: HttpRequest) -> JsonResponse:
    """Answer with what the model found in each review, in the order in which they came."""
    prompts = [f"Sort this review: {text}" for text in json.loads(request.body)["reviews"]]
    found = client.map(
        prompts, response_format=Review, model="gpt-4o-mini", return_errors=True, timeout_s=60
    )
    return JsonResponse(
        {"reviews": [one.parsed.model_dump() if one.parsed else None for one in found]}
    )


def tell(request: HttpRequest) -> StreamingHttpResponse:
    """Answer with a text as server-sent events."""
    job = client.submit(f"Tell me about {request.GET['topic']}.", stream=True)

    def events() -> Iterator[str]:
        try:
            for piece in job.stream(pulse_s=10):
                yield f"data: {json.dumps(piece)}\n\n" if piece else ": still there\n\n"
        except JobFailed as failed:
            yield f"event: failed\ndata: {failed.code}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


urlpatterns = [path("reviews", sort_reviews), path("stories", tell)]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    SECRET_KEY=secrets.token_hex(),
)
django.setup()
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
