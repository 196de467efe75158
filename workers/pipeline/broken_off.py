"""The bill of an answer that broke off: what its part costs at least.

OpenAI and Anthropic stop when the connection closes, and bill what was made until then. Google,
Groq and Mistral go on to the end and bill the whole answer (OpenRouter's documentation, "Stream
Cancellation"). No vendor says afterwards what it billed. So the attempt stays one of unknown
billing, and budgets count its upper bound.

Only jobs with `events` have such a bill, which are new with it. Workers of the release before do
not add it up: where one of them ends such a job in an upgrade, its audit line lacks the part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.cost.bill import AnswerBill, bill_of
from headgate.shared.cost.rates import PLAIN
from headgate.shared.job.result import Reply, Usage
from headgate.workers.pipeline.job_run import JobRun
from headgate.workers.stages.stream import DeltaStream


@dataclass(frozen=True, slots=True)
class PartBill:
    """What was made at least, and its cost; None: no price is known, or nothing was made."""

    usage: Usage = Usage()  # noqa: RUF009  # frozen
    cost_pico_usd: int | None = None


NOTHING_MADE = PartBill()


def part_bill(job: JobRun, model: Model, catalog: Catalog, pieces: DeltaStream | None) -> PartBill:
    """Return the bill of what was made; add it to the job.

    Counts that the vendor has not sent, or that cannot be true, are estimated: the input from the
    request and the output from the text.
    """
    made = None if pieces is None or not pieces.wants_events else pieces.made
    if made is None:
        return NOTHING_MADE
    request, written = job.envelope.request, tokens.text_tokens(made.text, model)

    def bill(given: Usage) -> AnswerBill:
        usage = replace(
            given,
            input_tokens=given.input_tokens or job.input_tokens(model),
            output_tokens=max(given.output_tokens, written),
        )
        return bill_of(Reply(made.text, "", usage), PLAIN, request, model, catalog)

    found = bill(made.usage)
    if found.note is not None:
        found = bill(Usage())
    part = PartBill(found.counted, found.counted_pico_usd)
    job.usage = part.usage
    if part.cost_pico_usd is not None:
        job.history.add_part(part.cost_pico_usd)
    return part
