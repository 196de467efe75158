"""What OpenAI's dialect does with each field of a request in Anthropic's form: one row a field.

`tests/integration/workers/providers/test_anthropic_form.py` sends each row as a job of the dialect
`anthropic` to two recording vendors. At Anthropic each row passes to the byte. The page
`docs/reference/fields.md` is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.request_matrix import HI, Outcome

TOOL = '{"name":"f","description":"d","input_schema":{"type":"object"}}'
FUNCTION = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}
USE = '{"type":"tool_use","id":"toolu_1","name":"f","input":{"x":1}}'
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
SCHEMA = (
    '{"type":"object","properties":{"b":{"type":"string"}},"required":["b"],'
    '"additionalProperties":false}'
)
STRICT = {
    "type": "object",
    "properties": {"b": {"type": "string"}},
    "required": ["b"],
    "additionalProperties": False,
}
PNG = "iVBORw0KGgo="


@dataclass(frozen=True)
class FormRow:
    """One field: what a caller gives, and what OpenAI's dialect makes of it.

    `given`: the params, as JSON without braces, to the byte. `openai`: what a chat completion has
    in their place. `messages`: those of the caller. `turns`: those of the chat completion; None:
    the same. `field`: what a refusal names. `model`: the one that is asked at OpenAI.
    """

    name: str
    given: str = ""
    outcome: Outcome = "translated"
    words: str = ""
    openai: dict[str, Any] | None = None
    messages: str = HI
    turns: list[dict[str, Any]] | None = None
    field: str = ""
    model: str = "gpt-4o-mini"


def _refused(name: str, given: str, words: str = "", *, field: str = "") -> FormRow:
    return FormRow(name, given, "refused", words, field=field or f"params.{name.split('`')[1]}")


def _tool(name: str, tool: str, words: str = "", *, field: str = "params.tools[0]") -> FormRow:
    return FormRow(name, f'"tools":[{tool}]', "refused", words, field=field)


def _lost_block(name: str, block: str, words: str = "", *, rest: str = "") -> FormRow:
    messages = f'[{{"role":"user","content":[{block}]}}]'
    field = f"messages[0].content[0]{rest}"
    return FormRow(name, "", "refused", words, messages=messages, field=field)


def _block(
    name: str, block: str, words: str, parts: Any, outcome: Outcome = "translated"
) -> FormRow:
    messages = f'[{{"role":"user","content":[{block}]}}]'
    return FormRow(
        name, "", outcome, words, messages=messages, turns=[{"role": "user", "content": parts}]
    )


_USER_HI = {"role": "user", "content": "Hi"}
_ASKS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
_IMAGE = f'{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{PNG}"}}}}'
_IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def _result(name: str, rest: str, words: str, sent: str, *more: Any) -> FormRow:
    """Return a row of a conversation that ends with the result of a tool."""
    result = f'{{"type":"tool_result","tool_use_id":"toolu_1",{rest}}}'
    messages = (
        f'[{HI[1:-1]},{{"role":"assistant","content":[{USE}]}},'
        f'{{"role":"user","content":[{result}]}}]'
    )
    tool = {"role": "tool", "tool_call_id": "toolu_1", "content": sent}
    return FormRow(name, "", words=words, messages=messages, turns=[_USER_HI, _ASKS, tool, *more])


FORM_PARAMS = [
    FormRow("`max_tokens`", '"max_tokens":9', "passes", openai={"max_tokens": 9}),
    _refused("`max_tokens` 0", '"max_tokens":0', "it only fills Anthropic's cache"),
    FormRow("`system`: a text", '"system":"s"', words="a `system` message", openai={},
            turns=[{"role": "system", "content": "s"}, _USER_HI]),
    FormRow("`system`: blocks",
            '"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},'
            '{"type":"text","text":"b"}]',
            words="a `system` message", openai={},
            turns=[{"role": "system", "content": "a\n\nb"}, _USER_HI]),
    FormRow("`temperature`, `top_p`", '"temperature":0.5,"top_p":0.25', "passes"),
    _refused("`top_k`", '"top_k":5'),
    FormRow("`stop_sequences`", '"stop_sequences":["END"]', words="`stop`",
            openai={"stop": ["END"]}),
    _refused("`stop_sequences`, more than 4", '"stop_sequences":["a","b","c","d","e"]'),
    FormRow("`tools`", f'"tools":[{TOOL}]', words="functions", openai={"tools": [FUNCTION]}),
    FormRow("`strict` of a tool",
            f'"tools":[{{"name":"f","input_schema":{SCHEMA},"strict":true}}]',
            words="`strict`, if the schema keeps OpenAI's rules",
            openai={"tools": [{"type": "function", "function": {
                "name": "f", "parameters": STRICT, "strict": True}}]}),
    FormRow("`cache_control`, `eager_input_streaming` of a tool",
            f'"tools":[{TOOL[:-1]},"cache_control":{{"type":"ephemeral"}},'
            '"eager_input_streaming":true}]',
            "left out", "hints for speed", {"tools": [FUNCTION]}),
    _tool("`tools` that Anthropic runs", '{"type":"web_search_20250305","name":"web_search"}'),
    _tool("`tools` that Anthropic defines", '{"type":"bash_20250124","name":"bash"}'),
    _tool("`defer_loading` of a tool", f'{TOOL[:-1]},"defer_loading":true}}',
          field="params.tools[0].defer_loading"),
    _tool("`input_examples` of a tool", f'{TOOL[:-1]},"input_examples":[{{"x":1}}]}}',
          field="params.tools[0].input_examples"),
    _tool("names of tools above 64 characters", f'{{"name":"{"n" * 65}","input_schema":{{}}}}',
          field="params.tools[0].name"),
    FormRow("`tool_choice` `auto`, `none`", f'"tools":[{TOOL}],"tool_choice":{{"type":"none"}}',
            words="the same words", openai={"tools": [FUNCTION], "tool_choice": "none"}),
    FormRow("`tool_choice` `any`", f'"tools":[{TOOL}],"tool_choice":{{"type":"any"}}',
            words="`required`", openai={"tools": [FUNCTION], "tool_choice": "required"}),
    FormRow("`tool_choice` `tool`",
            f'"tools":[{TOOL}],"tool_choice":{{"type":"tool","name":"f"}}',
            words="the function", openai={
                "tools": [FUNCTION],
                "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    FormRow("`disable_parallel_tool_use`",
            f'"tools":[{TOOL}],"tool_choice":{{"type":"auto","disable_parallel_tool_use":true}}',
            words="`parallel_tool_calls`",
            openai={"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False}),
    FormRow("`output_config.format`",
            f'"output_config":{{"format":{{"type":"json_schema","schema":{SCHEMA}}}}}',
            words="`response_format`", openai={"response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": STRICT, "strict": True}}}),
    FormRow("`output_config.effort` at models that reason", '"output_config":{"effort":"max"}',
            words="`reasoning_effort`", openai={"reasoning_effort": "xhigh"}, model="gpt-5.4"),
    FormRow("`thinking` at models that reason",
            '"thinking":{"type":"enabled","budget_tokens":20000}',
            words="`reasoning_effort`", openai={"reasoning_effort": "high"}, model="gpt-5.4"),
    FormRow("`thinking` with `tools`, from gpt-5.2 on",
            f'"thinking":{{"type":"adaptive"}},"tools":[{TOOL}]',
            words="`reasoning_effort` `none`, because OpenAI refuses others",
            openai={"tools": [FUNCTION], "reasoning_effort": "none"}, model="gpt-5.4"),
    FormRow("`thinking`, `effort` at other models",
            '"thinking":{"type":"adaptive"},"output_config":{"effort":"low"}', "left out",
            "they have nothing like it", {}),
    _refused("`output_config` with other keys", '"output_config":{"task_budget":{"total":9}}',
             field="params.output_config.task_budget"),
    FormRow("`metadata.user_id`", '"metadata":{"user_id":"u-1"}', words="`safety_identifier`, at "
            "OpenAI itself only", openai={}),
    FormRow("`service_tier` `standard_only`", '"service_tier":"standard_only"',
            words="`default`", openai={"service_tier": "default"}),
    FormRow("`service_tier` `auto`", '"service_tier":"auto"', "left out", "it is the default", {}),
    FormRow("`speed` `standard`", '"speed":"standard"', "left out", "it is the default", {}),
    _refused("`speed` `fast`", '"speed":"fast"'),
    FormRow("`cache_control`", '"cache_control":{"type":"ephemeral"}', "left out",
            "a mark for Anthropic's cache", {}),
    FormRow("`diagnostics`", '"diagnostics":{"previous_message_id":null}', "left out",
            "about Anthropic's cache", {}),
    FormRow("`anthropic_version`", '"anthropic_version":"2023-06-01"', "left out",
            "the version of Anthropic's API; sent there as a header", {}),
    FormRow("`anthropic_beta`", '"anthropic_beta":["context-1m-2025-08-07"]', "left out",
            "it names features, not their use", {}),
    FormRow("`context_management` that clears thinking",
            '"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}',
            "left out", "thinking is left out in any case", {}),
    _refused("`context_management` with other edits",
             '"context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}'),
    _refused("`container`", '"container":"c-1"'),
    _refused("`mcp_servers`", '"mcp_servers":[{"type":"url","url":"https://x.test","name":"x"}]'),
    _refused("`inference_geo`", '"inference_geo":"us"'),
    _refused("a param newer than Headgate", '"brand_new":{"a":[1,null,"ü"]}',
             field="params.brand_new"),
    FormRow("null in any param", '"container":null,"speed":null', "left out",
            "it asks for nothing", {}),
]  # fmt: skip

FORM_MESSAGES = [
    _block("`text`", '{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}',
           "without marks of the cache", "a"),
    _block("`image` as base64", _IMAGE, "`image_url` with a data URL", [_IMAGE_PART]),
    _block("`image` by address",
           '{"type":"image","source":{"type":"url","url":"https://x.test/y.png"}}', "`image_url`",
           [{"type": "image_url", "image_url": {"url": "https://x.test/y.png"}}]),
    _lost_block("`image` of the Files API",
                '{"type":"image","source":{"type":"file","file_id":"file-1"}}', rest=".source"),
    _block("`document` as base64",
           '{"type":"document","title":"a","source":{"type":"base64",'
           '"media_type":"application/pdf","data":"JVBERi0="}}', "`file`",
           [{"type": "file", "file": {
               "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}]),
    _block("`document` as text",
           '{"type":"document","title":"a","context":"c","source":{"type":"text",'
           '"media_type":"text/plain","data":"d"}}', "a text", "a\n\nc\n\nd"),
    _lost_block("`document` by address",
                '{"type":"document","source":{"type":"url","url":"https://x.test/y.pdf"}}',
                rest=".source"),
    _lost_block("`citations` of a document",
                '{"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"},'
                '"citations":{"enabled":true}}', rest=".citations"),
    _lost_block("`search_result`",
                '{"type":"search_result","source":"s","title":"t","content":[]}'),
    _lost_block("blocks of tools that Anthropic runs",
                '{"type":"container_upload","file_id":"f"}'),
    _result("`tool_use`, `tool_result`", '"content":"sunny"', "`tool_calls`, role `tool`", "sunny"),
    _result("`tool_result` with blocks",
            '"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]', "one text",
            "a\n\nb"),
    _result("`is_error` of a result", '"content":"no network","is_error":true',
            "the text begins with `Error:`", "Error: no network"),
    _result("images in a result", f'"content":[{{"type":"text","text":"seen"}},{_IMAGE}]',
            "they follow in a message of the user", "seen",
            {"role": "user", "content": [
                {"type": "text", "text": "From the result of the tool call toolu_1:"},
                _IMAGE_PART]}),
    FormRow("`thinking`, `redacted_thinking`", "", "left out", "only their model can read them",
            messages=f'[{HI[1:-1]},{{"role":"assistant","content":[{{"type":"thinking",'
            '"thinking":"Hm.","signature":"c2ln"},{"type":"redacted_thinking","data":"eA=="},'
            f'{{"type":"text","text":"Yes."}}]}},{HI[1:-1]}]',
            turns=[_USER_HI, {"role": "assistant", "content": "Yes."}, _USER_HI]),
    FormRow("role `system` amid messages", "", "passes",
            messages=f'[{HI[1:-1]},{{"role":"system","content":"s"}},{HI[1:-1]}]',
            turns=[_USER_HI, {"role": "system", "content": "s"}, _USER_HI]),
    FormRow("a last turn of the assistant", "", "refused", "OpenAI cannot go on with it",
            messages=f'[{HI[1:-1]},{{"role":"assistant","content":"The answer is"}}]',
            field="messages[1]"),
    _lost_block("a block newer than Headgate", '{"type":"brand_new","x":1}'),
    _lost_block("a field of a block newer than Headgate",
                '{"type":"text","text":"a","brand_new":1}', rest=".brand_new"),
]  # fmt: skip
