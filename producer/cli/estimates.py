"""`headgate estimates`: how many tokens are reserved for answers, and how many they took."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

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
    """Compare reserved tokens with those that answers took.

    One line for each model, tenant and template with an answer in the last 30 days, the latest
    answer first. Older answers count less.

    \b
    answers        answers that were counted
    promised       share of answers that may take more than was held
                   (HEADGATE_UNDER_RESERVE)
    seen           share of answers that did take more than was held
    held           tokens held for the output of the next answer;
                   `-`: the line (all) of the model decides
    mean           mean output in tokens
    input          factor that corrects estimates of the prompt's tokens
    error          largest error of the estimates for 50 % of the tokens
    error of 95 %  largest error of the estimates for 95 % of the tokens
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
        "model", "tenant", "template", "answers", "promised", "seen", "held", "mean", "input",
        "error", "error of 95 %",
    )  # fmt: skip
    print_table(
        names,
        (
            (
                one.group.model,
                "(all)" if one.group.tenant is None else one.group.tenant,
                one.group.template,
                one.answers,
                _percent(one.promised),
                _percent(one.seen),
                one.held_output,
                None if one.mean_output is None else round(one.mean_output),
                None if one.input_ratio is None else f"{one.input_ratio:.2f}",
                _percent(one.input_error_p50),
                _percent(one.input_error_p95),
            )
            for one in shown
        ),
        optional=("template", "error", "error of 95 %", "mean", "input"),
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"
