"""`headgate models`: the models of the catalog in force."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from headgate.producer.admin.provider_keys import ProviderKeys
    from headgate.shared.catalog.catalog import Catalog
    from headgate.shared.catalog.schema import Model


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def models(names: tuple[str, ...], as_json: bool) -> None:
    """List the models of the catalog with prices and limits, or the models NAME.

    NAME may be a dated snapshot or a fine-tune (ft:...) of a model that the catalog lists. Both run
    on its limits. Their prices are looked up by the full name.

    \b
    context        tokens of prompt and answer together, at most
    output         tokens of the answer, at most
    USD/M in, out  price of 1,000,000 input or output tokens in USD
    key            set, or missing: jobs for the model will fail; of
                   the running workers, or of this command if none runs
    """
    from headgate.producer.admin.provider_keys import provider_keys
    from headgate.shared import settings
    from headgate.shared.catalog import catalog

    chosen = settings.load()
    in_force = catalog.load(chosen.catalog)
    wanted = [in_force.model(name, "NAME") for name in names] or in_force.models.values()
    keys = provider_keys(chosen)
    found = [_described(model, in_force, keys) for model in wanted]
    if as_json:
        for one in found:
            print_json(one)
        return
    _print_models(found)


def _print_models(found: list[dict[str, Any]]) -> None:
    columns = (
        "model", "provider", "class", "context", "output", "USD/M in", "USD/M out", "limits", "key",
    )  # fmt: skip
    print_table(
        columns,
        (
            (
                one["name"], one["provider"], one["class"], one["context_tokens"],
                one["max_output_tokens"] or None,
                cells.amount(one["usd_per_million_input_tokens"]),
                cells.amount(one["usd_per_million_output_tokens"]),
                " ".join(f"{name}={n}" for name, n in one["limits"].items()),
                cells.state("set" if one["key_is_set"] else "missing"),
            )
            for one in found
        ),
        optional=("limits", "output", "context", "provider", "USD/M in", "USD/M out", "class"),
    )  # fmt: skip


def _described(model: Model, in_force: Catalog, keys: ProviderKeys) -> dict[str, Any]:
    from headgate.shared.cost import rates

    provider, pool = in_force.provider(model), in_force.pool(model)
    sheets = rates.price_lists_of(model, in_force)
    rate = sheets[0].rates[-1] if sheets else None
    measures = ("rpm", "tpm", "input_tpm", "output_tpm", "rpd", "concurrent")
    limits = {name: getattr(pool, name) for name in measures}
    return {
        "name": model.name,
        "provider": model.provider,
        "variant_of": model.variant_of or None,
        "class": model.model_class,
        "pool": model.pool_key,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": sorted(model.capabilities),
        "fallback": list(model.fallback),
        "usd_per_million_input_tokens": rate and _per_million(rate.input),
        "usd_per_million_output_tokens": rate and _per_million(rate.output),
        "limits": {name: amount for name, amount in limits.items() if amount is not None},
        "key_is_set": keys.has_key(provider),
        "key_of": "here" if keys.of_workers is None else "workers",
        "source": model.source,
        "checked": model.checked.isoformat(),
    }


def _per_million(usd_per_token: Decimal) -> str:
    from headgate.shared.cost import price

    return price.text(usd_per_token.scaleb(6))
