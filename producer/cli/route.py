"""`headgate route`: which model `auto` chooses for a prompt, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.jobs import read_prompt
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.options import MAX_TOKENS, MAX_USD_PER_MILLION, PREFER, TASK
from headgate.producer.cli.terminal.output import json_option, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from headgate.shared.routing.router import Route

#: One transparent pixel, in place of the image of a prompt.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@click.command()
@click.argument("prompt", required=False)
@MAX_USD_PER_MILLION
@PREFER
@TASK
@MAX_TOKENS
@click.option("--image", is_flag=True, help="Route as if the prompt contained an image.")
@json_option
def route(
    prompt: str | None, max_tokens: int | None, image: bool, as_json: bool, **options: str | None
) -> None:
    """Show which model `auto` chooses for PROMPT, and why.

    It sends nothing to a provider. Without PROMPT, or with `-`, it reads the prompt from standard
    input.

    \b
    Example: headgate route "Translate to French: good morning" --prefer speed
    """
    from headgate.producer.cli.terminal.servers import open_client

    fields: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    text = read_prompt(prompt)
    if image:
        pixel = {"type": "image_url", "image_url": {"url": PIXEL}}
        fields["messages"] = [{"role": "user", "content": [{"type": "text", "text": text}, pixel]}]
    else:
        fields["prompt"] = text
    if max_tokens is not None:
        fields["params"] = {"max_tokens": max_tokens}
    with open_client() as client:
        found = client.route(**fields)
    print_json(found.as_json()) if as_json else _print(found)


def _print(found: Route) -> None:
    print_pairs(
        [
            ("model", found.model),
            ("kind", found.kind),
            ("complexity", f"{found.score} ({found.level})"),
            ("typical cost", "unknown" if found.usd is None else f"{found.usd} USD"),
            *(("why", reason) for reason in found.reasons),
        ]
    )
    if found.runners_up:
        names = ("runner-up", "provider", "USD for the same", "times")
        print_table(
            names,
            (
                (
                    one.model,
                    one.provider,
                    cells.usd(one.usd),
                    cells.amount(_times(one.usd, found.usd)),
                )
                for one in found.runners_up
            ),
            optional=("provider", "times"),
        )


def _times(other: str | None, chosen: str | None) -> str | None:
    from decimal import Decimal

    if other is None or chosen is None or not Decimal(chosen):
        return None
    return f"{Decimal(other) / Decimal(chosen):.1f}"
