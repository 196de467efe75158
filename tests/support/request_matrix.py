"""What each dialect does with each field of a request: one row a field.

`tests/integration/workers/providers/test_request_matrix.py` sends each row through a batch line, an
envelope and a provider to a recording vendor. The page `docs/reference/fields.md` is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["passes", "translated", "left out", "refused"]

HI = '[{"role":"user","content":"Hi"}]'
TOOL = '{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}'
CALL = '{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\\"x\\":1}"}}'
THINKING = '{"type":"thinking","thinking":"Hm.","signature":"c2ln"}'
SCHEMA = '{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}'
LARGE = "12345678901234567890123"


@dataclass(frozen=True)
class Row:
    """One field: what a caller gives, and what is sent. OpenAI's dialect sends it as it is.

    `given`: the body behind model and messages, as JSON without its braces, to the byte.
    `outcome`, `words`: what becomes of it in Anthropic's dialect. `anthropic`: what its body holds
    in the place of `given`; None: the same. `turns`: its messages; None: the same. `system`: its
    system prompt. `field`: what the refusal names.
    """

    name: str
    given: str = ""
    outcome: Outcome = "passes"
    words: str = ""
    anthropic: dict[str, Any] | None = None
    messages: str = HI
    turns: list[dict[str, Any]] | None = None
    system: Any = None
    field: str = ""


def _refused(name: str, given: str, words: str = "", *, field: str = "") -> Row:
    return Row(name, given, "refused", words, field=field or f"params.{name.split('`')[1]}")


def _message(name: str, messages: str, outcome: Outcome, words: str, **more: Any) -> Row:
    return Row(name, "", outcome, words, messages=messages, **more)


def _part(name: str, part: str, outcome: Outcome, words: str, block: Any = None) -> Row:
    messages = f'[{{"role":"user","content":[{part}]}}]'
    turns = None if block is None else [{"role": "user", "content": [block]}]
    field = "messages[0].content[0]" if outcome == "refused" else ""
    return _message(name, messages, outcome, words, turns=turns, field=field)


OPENAI_PARAMS = [
    Row("`max_tokens`", '"max_tokens":9'),
    Row("`max_completion_tokens`", '"max_completion_tokens":9', "translated", "`max_tokens`",
        {"max_tokens": 9}),
    Row("`temperature`", '"temperature":0.5'),
    Row("`temperature` above 1", '"temperature":1.5', "translated", "1", {"temperature": 1}),
    Row("`top_p`", '"top_p":0.25'),
    Row("`top_p` with `temperature`", '"temperature":0.5,"top_p":0.25', "refused",
        "newer models take one of both", field="params.top_p"),
    Row("`stop`", '"stop":["END"]', "translated", "`stop_sequences`", {"stop_sequences": ["END"]}),
    _refused("`stop` of blanks only", '"stop":"\\n"', "Anthropic takes no such text"),
    Row("`response_format` with a schema",
        f'"response_format":{{"type":"json_schema","json_schema":{{"name":"n","schema":{SCHEMA}}}}}',
        "translated", "`output_config.format`",
        {"output_config": {"format": {"type": "json_schema", "schema": {
            "type": "object",
            "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}}}}),
    Row("`response_format` `json_object`", '"response_format":{"type":"json_object"}',
        "translated", "an instruction in `system`", {},
        system="Answer with one JSON object and nothing else: no explanation, no code fence."),
    Row("`tools` with functions", f'"tools":[{TOOL}]', "translated", "tools of Anthropic's form",
        {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
    Row("`tools` of the type `custom`", '"tools":[{"type":"custom","custom":{"name":"f"}}]',
        "refused", field="params.tools"),
    Row("`tool_choice`", f'"tools":[{TOOL}],"tool_choice":"required"', "translated",
        "such as `any`",
        {"tools": [{"name": "f", "input_schema": {"type": "object"}}],
         "tool_choice": {"type": "any"}}),
    Row("`parallel_tool_calls`", f'"tools":[{TOOL}],"parallel_tool_calls":false', "translated",
        "`disable_parallel_tool_use`",
        {"tools": [{"name": "f", "input_schema": {"type": "object"}}],
         "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    _refused("`functions`", '"functions":[{"name":"f","parameters":{"type":"object"}}]',
             "give `tools`"),
    _refused("`function_call`", '"function_call":"auto"', "give `tool_choice`"),
    Row("`user`", '"user":"u-1"', "translated", "`metadata.user_id`",
        {"metadata": {"user_id": "u-1"}}),
    Row("`safety_identifier`", '"safety_identifier":"s-1"', "translated", "`metadata.user_id`",
        {"metadata": {"user_id": "s-1"}}),
    Row("`metadata` with `user_id`", '"metadata":{"user_id":"u-2"}'),
    _refused("`metadata` with other keys", '"metadata":{"project":"p"}'),
    _refused("`store: true`", '"store":true', field="params.store"),
    Row("`store: false`", '"store":false', "left out", "Anthropic stores nothing", {}),
    Row("`service_tier` `default`", '"service_tier":"default"', "translated", "`standard_only`",
        {"service_tier": "standard_only"}),
    Row("`service_tier` `auto`", '"service_tier":"auto"'),
    _refused("`service_tier` `flex`, `priority`", '"service_tier":"flex"'),
    _refused("`n` above 1", '"n":2', "ask for samples", field="params.n"),
    _refused("`seed`", '"seed":7'),
    _refused("`frequency_penalty`", '"frequency_penalty":0.5', "0 is left out"),
    _refused("`presence_penalty`", '"presence_penalty":0.5', "0 is left out"),
    _refused("`logit_bias`", '"logit_bias":{"50256":-100}'),
    _refused("`logprobs`", '"logprobs":true', "false is left out"),
    _refused("`top_logprobs`", '"top_logprobs":3'),
    Row("`reasoning_effort`", '"max_tokens":4096,"reasoning_effort":"low"', "translated",
        "`thinking`, and from Claude 4.6 on `output_config.effort`",
        {"max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048}}),
    Row("`reasoning_effort` `none`", '"reasoning_effort":"none"', "left out",
        "it asks for nothing", {}),
    _refused("`reasoning_effort` with `temperature` below 1",
             '"reasoning_effort":"low","temperature":0.5', "Claude refuses both together"),
    _refused("`verbosity`", '"verbosity":"low"', "`medium` is left out"),
    _refused("`modalities`", '"modalities":["text","audio"]', "text alone is left out"),
    _refused("`audio`", '"audio":{"voice":"ash","format":"wav"}'),
    _refused("`web_search_options`", '"web_search_options":{}', "give a tool of Anthropic's"),
    _refused("`moderation`", '"moderation":{"model":"m"}'),
    Row("`prediction`", '"prediction":{"type":"content","content":"x"}', "left out",
        "a hint for speed", {}),
    Row("`prompt_cache_key`", '"prompt_cache_key":"k"', "left out",
        "a hint for OpenAI's cache", {}),
    Row("`prompt_cache_retention`", '"prompt_cache_retention":"24h"', "left out",
        "a hint for OpenAI's cache", {}),
    Row("null in these params", '"stop":null,"tools":null,"metadata":null,"seed":null,"user":null',
        "left out", "it asks for nothing", {}),
]  # fmt: skip

ANTHROPIC_PARAMS = [
    Row("`system`", '"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]'),
    Row("`stop_sequences`", '"stop_sequences":["END"]'),
    Row("`thinking`", '"thinking":{"type":"enabled","budget_tokens":1024}'),
    Row("`thinking: null`", '"thinking":null'),
    Row("`output_config`", '"output_config":{"effort":"low"}'),
    Row("`top_k`", '"top_k":5'),
    Row("`inference_geo`", '"inference_geo":"us"'),
    Row("`context_management`", '"context_management":{"edits":[]}'),
    Row("`tools` of Anthropic's form", '"tools":[{"name":"f","input_schema":{"type":"object"}}]'),
    Row("`tools` that Anthropic runs",
        '"tools":[{"type":"web_search_20250305","name":"web_search"}]'),
]  # fmt: skip

ANY_PARAMS = [
    Row("a param newer than Headgate", '"brand_new":{"a":[1,null,"ü"]}'),
    Row("whole numbers of any size", f'"brand_new":[{LARGE},-{LARGE},18446744073709551616]'),
    Row("numbers with a fraction", '"brand_new":[0.1,1.0,1e-7,-2.5]'),
]

_RESULT = '{"role":"tool","tool_call_id":"call_1","content":"sunny"}'
_ASKS = f'{{"role":"assistant","content":null,"tool_calls":[{CALL}]}}'
_USE = {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}}
_GIVES = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
_USER_HI = {"role": "user", "content": "Hi"}

MESSAGES = [
    _message("role `system`, `developer`", f'[{{"role":"developer","content":"d"}},{HI[1:]}',
             "translated", "`system`", turns=[_USER_HI], system="d"),
    _message("`tool_calls`, role `tool`", f"[{HI[1:-1]},{_ASKS},{_RESULT}]", "translated",
             "`tool_use`, `tool_result`",
             turns=[_USER_HI, {"role": "assistant", "content": [_USE]},
                    {"role": "user", "content": [_GIVES]}]),
    _message("`function_call`, role `function`",
             f'[{HI[1:-1]},{{"role":"function","name":"f","content":"sunny"}}]',
             "refused", "give `tool_calls`", field="messages[1].role"),
    _message("`refusal` of an assistant", f'[{HI[1:-1]},{{"role":"assistant","content":null,'
             f'"refusal":"No."}},{HI[1:-1]}]', "translated", "a text",
             turns=[_USER_HI, {"role": "assistant", "content": "No."}, _USER_HI]),
    _message("`audio` of an assistant", f'[{HI[1:-1]},{{"role":"assistant","content":null,'
             f'"audio":{{"id":"a"}}}},{HI[1:-1]}]', "refused", "", field="messages[1].audio"),
    _message("`name` of a speaker", '[{"role":"user","content":"Hi","name":"Ann"}]', "refused", "",
             field="messages[0].name"),
    _part("part `image_url`", '{"type":"image_url","image_url":{"url":"https://x.test/y.png"}}',
          "translated", "`image`",
          {"type": "image", "source": {"type": "url", "url": "https://x.test/y.png"}}),
    _part("`detail` of an image",
          '{"type":"image_url","image_url":{"url":"https://x.test/y.png","detail":"low"}}',
          "left out", "a hint for OpenAI's price",
          {"type": "image", "source": {"type": "url", "url": "https://x.test/y.png"}}),
    _part("part `file` with `file_data`",
          '{"type":"file","file":{"filename":"a.pdf",'
          '"file_data":"data:application/pdf;base64,JVBERi0="}}',
          "translated", "`document`",
          {"type": "document", "title": "a.pdf", "source": {
              "type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}),
    _part("part `file` of plain text",
          '{"type":"file","file":{"file_data":"data:text/plain;base64,SGk="}}', "translated",
          "`document` as text",
          {"type": "document",
           "source": {"type": "text", "media_type": "text/plain", "data": "Hi"}}),
    _part("part `file` with `file_id`", '{"type":"file","file":{"file_id":"file-1"}}',
          "refused", ""),
    _part("part `input_audio`",
          '{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}', "refused", ""),
    _part("`cache_control` of a part",
          '{"type":"text","text":"Hi","cache_control":{"type":"ephemeral","ttl":"1h"}}',
          "passes", ""),
    _part("blocks of Anthropic's form",
          '{"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"},'
          '"citations":{"enabled":true}}', "passes", ""),
    _message("`thinking` blocks with signature", f'[{HI[1:-1]},{{"role":"assistant","content":'
             f'[{THINKING},{{"type":"redacted_thinking","data":"eA=="}},'
             f'{{"type":"text","text":"Yes."}}]}},{HI[1:-1]}]', "passes", ""),
]  # fmt: skip


@dataclass(frozen=True)
class EmbeddingRow:
    """One form of an embedding job. OpenAI's dialect sends all of it as it is."""

    name: str
    given: str
    tokens: int | None = None
    """The input tokens that are counted, where the caller gives tokens."""


EMBEDDINGS = [
    EmbeddingRow("`input`: a text", '"input":"a"'),
    EmbeddingRow("`input`: a list of texts", '"input":["a","b"]'),
    EmbeddingRow("`input`: a list of tokens", '"input":[20,344,321]', 3),
    EmbeddingRow("`input`: a list of token lists", '"input":[[20,344],[321]]', 3),
    EmbeddingRow("`dimensions`", '"input":"a","dimensions":256'),
    EmbeddingRow("`encoding_format`", '"input":"a","encoding_format":"base64"'),
    EmbeddingRow("`user`", '"input":"a","user":"u-1"'),
]
