"""FastAPI: an answer as server-sent events, which a browser goes on reading after a break.

    pip install fastapi uvicorn
    uvicorn fastapi_stories:app

`POST /stories` submits a job and returns its id at once. `GET /stories/ID/events` sends the text
while it is made. Each event has the place of its piece as its id, so a browser that lost its
connection asks for what follows, at any server of the application.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from headgate import AsyncClient, HeadgateError, InvalidRequest, StreamBroken, TierLimit

client = AsyncClient()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close the connections when the server stops."""
    yield
    await client.close()


app = FastAPI(lifespan=lifespan)


class Wanted(BaseModel):
    """What a caller posts."""

    topic: str


@app.get("/")
async def page() -> FileResponse:
    """Send the page that shows a story."""
    return FileResponse(Path(__file__).with_name("fastapi_stories.html"))


@app.post("/stories", status_code=202)
async def begin(wanted: Wanted) -> dict[str, str]:
    """Submit a job; return its id."""
    prompt = f"Tell me a story about {wanted.topic}."
    try:
        # The id is random and serves as a password here. An application with users keeps it with
        # its user, and lets nobody else read the story.
        job = await client.submit(prompt, stream=True, priority="interactive")
    except InvalidRequest as wrong:
        raise HTTPException(422, str(wrong)) from wrong
    except TierLimit as limit:
        retry = {"Retry-After": str(int(limit.retry_after_s) + 1)}
        raise HTTPException(429, str(limit), headers=retry) from limit
    return {"id": job.id}


@app.get("/stories/{job_id}/events")
async def events(job_id: str, last_event_id: Annotated[str, Header()] = "0") -> StreamingResponse:
    """Send the text from where the reader left off."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    sent = text_events(job_id, last_event_id)
    return StreamingResponse(sent, media_type="text/event-stream", headers=headers)


async def text_events(job_id: str, after: str) -> AsyncIterator[str]:
    """Yield the events of an answer: pieces, and at last `end` or `failed`."""
    yield "retry: 500\n\n"
    while True:
        try:
            async for piece in client.stream(job_id, after=after, pulse_s=10):
                yield event(piece, piece.after) if piece else ": still there\n\n"
            yield event("", name="end")
            return
        except StreamBroken:  # another worker made a new answer: the text so far is void
            after = "0"
            yield event("", "0", name="restart")
        except HeadgateError as error:
            yield event(str(error), name="failed")
            return


def event(text: str, place: str | None = None, name: str = "message") -> str:
    """Return one event; the text goes as JSON, so that it may have line breaks."""
    id_line = "" if place is None else f"id: {place}\n"
    return f"{id_line}event: {name}\ndata: {json.dumps(text)}\n\n"
