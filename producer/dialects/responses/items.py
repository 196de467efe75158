"""The output items of a whole answer, whatever vendor has given it."""

from __future__ import annotations

from collections import Counter

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.from_anthropic import annotations_in, refusal_in, tool_call
from headgate.producer.dialects.from_openai import called_in, reasoning_in, text_in
from headgate.producer.dialects.openai import is_completion, is_message
from headgate.producer.dialects.responses.ids import item_id
from headgate.producer.dialects.stop_reasons import finish_reason

CUT = ("length", "content_filter")
"""Reasons of OpenAI's for an answer that is not whole."""


class ItemIds:
    """Numbers the items of one answer, each kind by itself."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._counts: Counter[str] = Counter()

    def next(self, kind: str) -> str:
        """Return the id of the next item of this kind."""
        made = item_id(kind, self._job_id, self._counts[kind])
        self._counts[kind] += 1
        return made


def is_response(message: Fields) -> bool:
    """Return whether a vendor's message is a response of OpenAI's form."""
    return isinstance(message.get("output"), list)


def ending_of(result: Fields) -> str:
    """Return why the answer ended, in the terms of chat completions."""
    return finish_reason(result.get("finish_reason"))


def items_of(result: Fields) -> list[Fields]:
    """Return the items of a job that succeeded; `result`: as `Result.as_json()`."""
    sent = fields_of(result.get("message"))
    if is_response(sent):
        return objects_of(sent["output"])
    ids = ItemIds(result["id"])
    if is_message(sent):
        items = _from_message(sent, result, ids)
    else:
        items = _from_choice(_choice(sent, result), ids)
    if not items or (items[-1]["type"] == "reasoning" and ending_of(result) == "stop"):
        items.append(message_item(ids.next("message"), [text_part("")]))
    if ending_of(result) in CUT:
        items[-1] = {**items[-1], "status": "incomplete"}
    return items


def _choice(sent: Fields, result: Fields) -> Fields:
    """Return the first choice of a completion; one of what the result says, if there is none."""
    choices = objects_of(sent.get("choices")) if is_completion(sent) else []
    told = {"content": result.get("content"), "tool_calls": result.get("tool_calls")}
    return choices[0] if choices else {"message": told}


def _from_choice(choice: Fields, ids: ItemIds) -> list[Fields]:
    told = fields_of(choice.get("message"))
    items: list[Fields] = []
    if thought := reasoning_in(told):
        items.append(reasoning_item(ids.next("reasoning"), thought))
    calls = objects_of(told.get("tool_calls"))
    if called := fields_of(told.get("function_call")):
        calls = [*calls, {"function": called}]
    parts: list[Fields] = []
    if text := text_in(told.get("content")):
        logged = objects_of(fields_of(choice.get("logprobs")).get("content"))
        notes = flat_notes(objects_of(told.get("annotations")))
        parts.append(text_part(text, notes, [logprob(one) for one in logged]))
    if refusal := text_of(told.get("refusal")):
        parts.append({"type": "refusal", "refusal": refusal})
    if parts:
        items.append(message_item(ids.next("message"), parts))
    return [*items, *(call_item(call, ids) for call in calls)]


def _from_message(message: Fields, result: Fields, ids: ItemIds) -> list[Fields]:
    items: list[Fields] = []
    for run in runs_of(objects_of(message.get("content"))):
        kind = run[0]["type"]
        if kind == "text":
            text = "".join(text_of(block.get("text")) for block in run)
            part = text_part(text, flat_notes(annotations_in(run)))
            items.append(message_item(ids.next("message"), [part]))
        elif kind == "thinking":
            thought = "".join(text_of(block.get("thinking")) for block in run)
            items.append(reasoning_item(ids.next("reasoning"), thought))
        else:
            items.append(call_item(tool_call(run[0]), ids))
    texts = [item for item in items if item["type"] == "message"]
    if len(texts) == 1 and isinstance(result.get("content"), str):
        texts[0]["content"][0]["text"] = result["content"]  # without a fence around JSON
    if refusal := refusal_in(message):
        part = {"type": "refusal", "refusal": refusal}
        if items and items[-1]["type"] == "message":
            items[-1]["content"].append(part)
        else:
            items.append(message_item(ids.next("message"), [part]))
    return items


def runs_of(blocks: list[Fields]) -> list[list[Fields]]:
    """Return the blocks of a message that become items, those of one item together.

    Texts that follow each other are one item, and so are thoughts. Blocks without a counterpart
    part nothing.
    """
    runs: list[list[Fields]] = []
    for block in blocks:
        kind = block.get("type")
        empty = kind in ("text", "thinking") and not text_of(block.get(str(kind)))
        if kind not in ("text", "thinking", "tool_use") or empty:
            continue
        if runs and kind != "tool_use" and runs[-1][0]["type"] == kind:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def message_item(made: str, parts: list[Fields], status: str = "completed") -> Fields:
    """Return a message of the model; `made`: its id."""
    return {"id": made, "type": "message", "status": status, "role": "assistant", "content": parts}


def reasoning_item(made: str, thought: str) -> Fields:
    """Return what the model has thought; `made`: the item's id."""
    content = [{"type": "reasoning_text", "text": thought}]
    return {"id": made, "type": "reasoning", "summary": [], "content": content}


def call_item(call: Fields, ids: ItemIds) -> Fields:
    """Return a tool call of a chat completion as an item."""
    name, written = called_in(call)
    kind = "custom_tool_call" if "custom" in call else "function_call"
    made = ids.next(kind)
    return {
        "id": made,
        "type": kind,
        "status": "completed",
        written_field(kind): written,
        "call_id": text_of(call.get("id")) or f"call_{made.partition('_')[2]}",
        "name": name,
    }


def written_field(kind: str) -> str:
    """Return the field of a call's item that the model has written."""
    return "input" if kind == "custom_tool_call" else "arguments"


def text_part(
    text: str, notes: list[Fields] | None = None, logged: list[Fields] | None = None
) -> Fields:
    """Return a part of a message; `notes`: its annotations; `logged`: log probabilities."""
    return {
        "type": "output_text", "text": text, "annotations": notes or [], "logprobs": logged or [],
    }  # fmt: skip


def flat_notes(notes: list[Fields]) -> list[Fields]:
    """Return the annotations of a chat completion as those of a text; only pages are known."""
    places = (fields_of(note.get("url_citation")) for note in notes)
    return [
        {
            "type": "url_citation",
            "start_index": place["start_index"] if isinstance(place.get("start_index"), int) else 0,
            "end_index": place["end_index"] if isinstance(place.get("end_index"), int) else 0,
            "url": place["url"],
            "title": text_of(place.get("title")),
        }
        for place in places
        if isinstance(place.get("url"), str)
    ]


def logprob(one: Fields) -> Fields:
    """Return a log probability of a chat completion as a text has it."""
    others = objects_of(one.get("top_logprobs"))
    return {**_token(one), "top_logprobs": [_token(other) for other in others]}


def _token(one: Fields) -> Fields:
    return {
        "token": text_of(one.get("token")),
        "bytes": one.get("bytes") or [],
        "logprob": one.get("logprob") or 0.0,
    }
