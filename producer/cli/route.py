"""`headgate route`: which model `auto` would get for a prompt, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.jobs import words_given
from headgate.producer.cli.terminal.output import document, json_option, pairs, rows

if TYPE_CHECKING:
    from headgate.shared.routing.router import Route

KINDS = (
    "chat", "reasoning", "code", "research", "creative", "analysis", "summary", "translation",
    "vision",
)  # fmt: skip
#: Stands for an image that the prompt would carry: one transparent pixel.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--max-usd-per-million", metavar="X", help="No token, in or out, may cost more than this rate."
)
@click.option(
    "--prefer", type=click.Choice(["speed", "quality", "cost"]), help="What matters (cost)."
)
@click.option("--task", type=click.Choice(KINDS), help="What it is about, where you know.")
@click.option("--max-tokens", type=int, metavar="N", help="Longest answer.")
@click.option("--image", is_flag=True, help="As if the message carried an image.")
@json_option
def route(
    prompt: str | None, max_tokens: int | None, image: bool, as_json: bool, **options: str | None
) -> None:
    """Tell which model PROMPT (`-` or nothing: standard input) would get with --model auto."""
    from headgate.producer.client.client import Client

    fields: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    words = words_given(prompt)
    if image:
        shown = {"type": "image_url", "image_url": {"url": PIXEL}}
        fields["messages"] = [{"role": "user", "content": [{"type": "text", "text": words}, shown]}]
    else:
        fields["prompt"] = words
    if max_tokens is not None:
        fields["params"] = {"max_tokens": max_tokens}
    with Client() as client:
        found = client.route(**fields)
    document(found.as_json()) if as_json else _tell(found)


def _tell(found: Route) -> None:
    pairs(
        [
            ("model", found.model),
            ("kind", found.kind),
            ("complexity", f"{found.score} ({found.level})"),
            ("typical cost", "not known" if found.usd is None else f"{found.usd} USD"),
            *(("why", reason) for reason in found.reasons),
        ]
    )
    if found.runners_up:
        names = ("runner-up", "provider", "USD for the same", "times")
        rows(
            names,
            (
                (one.model, one.provider, one.usd, _times(one.usd, found.usd))
                for one in found.runners_up
            ),
            optional=("provider", "times"),
        )


def _times(other: str | None, chosen: str | None) -> str | None:
    from decimal import Decimal

    if other is None or chosen is None or not Decimal(chosen):
        return None
    return f"{Decimal(other) / Decimal(chosen):.1f}"
