"""`headgate estimates`: how many tokens are reserved for answers, and how many they took."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import json_option, print_json, print_note, print_table
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.estimates import EstimateReport
    from headgate.producer.installation import Installation


@click.command()
@click.option("--model", metavar="M", help="Only this model.")
@click.option("--tenant", metavar="T", help="Only this tenant.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="N",
    help="Show at most N lines.",
)  # fmt: skip
@json_option
def estimates(model: str | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """Show how many tokens are held for an answer, and how many it takes.

    Before a call, Headgate holds tokens of the limits for the answer. What the answer does not take
    is given back. How many to hold is learned from earlier answers: there is one line for each
    model, tenant and template with an answer in the last 30 days, the latest answer first. Older
    answers count less.

    \b
    answers    how many answers were counted
    mean       tokens that an answer takes on average
    held       tokens that are held for the next answer;
               `-`: too few answers, the line of (all) tenants decides
    took more  share of answers that took more than was held for them
    allowed    share that may do so (HEADGATE_UNDER_RESERVE)
    prompts    half of the estimates of prompts are off by less
               than this share
    at worst   95 of 100 are off by less than this
    corrected  factor by which estimates of prompts are corrected
    """
    from headgate.producer.admin import estimates as learned

    with open_session() as at:
        name = None if model is None else _known(at, model)
        found = learned.reports(
            at.redis,
            at.keys,
            lambda group: name in (None, group.model) and tenant in (None, group.tenant),
        )
        shown = list(islice(found, limit))
        more = next(found, None) is not None
    if as_json:
        for one in shown:
            print_json(_facts(one))
    elif shown:
        _table(shown)
    if not shown:
        print_note("no estimates: no such answers in the last 30 days")
    if more:
        print_note("there are more; use --model or --tenant, or a higher --limit")


def _known(at: Installation, model: str) -> str:
    from headgate.shared.errors import InvalidRequest, WrongUse

    try:
        return at.catalog.model(model).name
    except InvalidRequest:
        raise WrongUse("--model", model, "no such model; run `headgate models`") from None


def _facts(one: EstimateReport) -> dict[str, Any]:
    from headgate.shared.job.ids import rfc3339

    return {
        "model": one.group.model,
        "tenant": one.group.tenant,
        "template": one.group.template,
        "answers": one.answers,
        "promised": one.promised,
        "seen": one.seen,
        "held_output_tokens": one.held_output,
        "mean_output_tokens": one.mean_output,
        "input_ratio": one.input_ratio,
        "input_error_p50": one.input_error_p50,
        "input_error_p95": one.input_error_p95,
        "last_answer_at": rfc3339(one.last_answer_ms),
    }


def _table(shown: list[EstimateReport]) -> None:
    names = (
        "model", "tenant", "template", "answers", "mean", "held", "took more", "allowed",
        "prompts", "at worst", "corrected",
    )  # fmt: skip
    print_table(
        names,
        (
            (
                one.group.model,
                "(all)" if one.group.tenant is None else one.group.tenant,
                one.group.template,
                one.answers,
                None if one.mean_output is None else round(one.mean_output),
                one.held_output,
                _percent(one.seen),
                _percent(one.promised),
                _percent(one.input_error_p50),
                _percent(one.input_error_p95),
                cells.amount(None if one.input_ratio is None else f"{one.input_ratio:.2f}"),
            )
            for one in shown
        ),
        optional=("corrected", "at worst", "template", "prompts"),
    )


def _percent(share: float | None) -> cells.Cell | None:
    return cells.amount(None if share is None else f"{100 * share:.1f} %")
