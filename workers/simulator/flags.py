"""The simulator's command-line flags, and the behaviour that they ask for."""

import argparse
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from headgate.workers.simulator.answers import MOST_TOKENS
from headgate.workers.simulator.behaviour import DEFAULT_OUTPUT_SIGMA, Behaviour
from headgate.workers.simulator.billing import parse_price
from headgate.workers.simulator.faults import parse_rates
from headgate.workers.simulator.limits import LimitTable, SimulatedLimit, limit_from, table_from
from headgate.workers.simulator.ramp import RampRule
from headgate.workers.simulator.rate_headers import HEADER_STYLES


@dataclass(frozen=True, slots=True)
class Flags:
    """Everything that was asked for on the command line."""

    behaviour: Behaviour
    host: str
    port: int
    ready_file: Path | None
    json_log: bool
    with_parent: int | None


def parse(arguments: list[str]) -> Flags:
    """Parse the flags. Exits with 2 and a message with flag and value if one is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        behaviour = Behaviour(
            latency_ms=given.latency_ms,
            latency_sigma=given.latency_sigma,
            limits=_limits(given),
            burst_s=given.burst_s,
            fixed_windows=given.fixed_windows,
            count_refused=given.count_refused,
            per_key=given.per_key,
            rates=parse_rates(",".join(given.fail)),
            key=given.key,
            seed=given.seed,
            chars_per_token=given.chars_per_token,
            strict_models=tuple(filter(None, given.strict_models.split(","))),
            prices=dict(parse_price(spec) for spec in given.price),
            output_tokens=given.output_tokens,
            output_sigma=_output_sigma(given),
            headers=given.headers,
            ramp=_ramp(given),
        )
    except OSError as wrong:
        parser.error(f"--limits-file: {given.limits_file}: {wrong.strerror}")
    except ValueError as wrong:
        parser.error(str(wrong))
    return Flags(
        behaviour, given.host, given.port, given.ready_file, given.json_log, given.with_parent
    )


def parse_limit(spec: str) -> tuple[str, SimulatedLimit]:
    """Return model (or pattern) and limit of a text such as `MODEL:rpm=600,tpm=60000`."""
    model, _, rest = spec.rpartition(":")
    found: dict[str, object] = {}
    for one in rest.split(","):
        name, _, amount = one.partition("=")
        found[name.strip().replace("-", "_")] = int(amount) if amount.isdecimal() else amount
    if not model:
        raise ValueError(f"limit {spec!r}: expected MODEL:rpm=..,tpm=..")
    return model, limit_from(found, SimulatedLimit(), f"limit {spec!r}")


def _limits(given: argparse.Namespace) -> LimitTable:
    table = LimitTable()
    if given.limits_file is not None:
        raw = given.limits_file.read_bytes()
        toml = given.limits_file.suffix == ".toml"
        found = tomllib.loads(raw.decode()) if toml else orjson.loads(raw)
        table = table_from(found, table, str(given.limits_file))
    own = {name: getattr(given, name) for name in ("rpm", "tpm", "input_tpm", "output_tpm")}
    default = replace(table.default, **{name: one for name, one in own.items() if one is not None})
    return LimitTable(default, {**table.models, **dict(parse_limit(one) for one in given.limit)})


def _ramp(given: argparse.Namespace) -> RampRule | None:
    own = {"growth": given.ramp_growth, "window_s": given.ramp_window_s}
    named = {name: one for name, one in own.items() if one is not None}
    if given.ramp_floor is not None:
        return RampRule(given.ramp_floor, **named)
    if named:
        raise ValueError("--ramp-growth and --ramp-window-s need --ramp-floor TPM")
    return None


def _output_sigma(given: argparse.Namespace) -> float:
    if given.output_sigma is None:
        return DEFAULT_OUTPUT_SIGMA
    if given.output_tokens is None:
        raise ValueError(f"--output-sigma {given.output_sigma:g} needs --output-tokens MEDIAN")
    return float(given.output_sigma)


def _amount(text: str) -> float:
    """Read a number that is not negative, infinite or NaN."""
    with suppress(ValueError):
        if 0 <= (amount := float(text)) < float("inf"):
            return amount
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")


def _between(least: float, most: float) -> Callable[[str], float]:
    """Return a function that reads a number from `least` to `most`, both included."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if least <= (amount := float(text)) <= most:
                return amount
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")

    return read


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (amount := int(text)) >= 1:
            return amount
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _port(text: str) -> int:
    with suppress(ValueError):
        if 0 <= (port := int(text)) <= 65535:
            return port
    raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headgate simulate",
        usage="%(prog)s [OPTIONS]",
        description="Simulate the APIs of OpenAI and Anthropic, with limits, faults and a bill.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=0, help="port to listen on (default: 0, a free one)")
    add("--ready-file", type=Path, help="write the URL to this file once it listens")
    _add_answers(parser)
    _add_limits(parser)
    _add_ramp(parser)
    _add_faults(parser)
    add(
        "--json-log", action="store_true", help="log one line of JSON per request on standard error"
    )
    add("--with-parent", type=_positive, metavar="PID", help="stop when this process has ended")
    return parser


def _add_answers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--latency-ms", type=_amount, default=0.0, help="median time to an answer (default: 0)")
    add(
        "--latency-sigma",
        type=SIGMA,
        default=0.0,
        help="lognormal spread of that time (default: 0, constant)",
    )
    lengths = _between(1, MOST_TOKENS)
    add(
        "--output-tokens",
        type=lengths,
        metavar="MEDIAN",
        help="median length of an answer in tokens",
    )
    add(
        "--output-sigma",
        type=SIGMA,
        help="lognormal spread of that length (default: 0.6; 0: constant)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rpm", type=_positive, help="requests a minute, for each model")
    add("--tpm", type=_positive, help="tokens a minute (Anthropic: of input and of output, each)")
    add("--input-tpm", type=_positive, help="input tokens a minute (Anthropic)")
    add("--output-tpm", type=_positive, help="output tokens a minute (Anthropic)")
    add(
        "--burst-s",
        type=_amount,
        default=1.0,
        help="seconds of the rate that a bucket holds: may be used at once (default: 1)",
    )
    add(
        "--fixed-windows",
        action="store_true",
        help="fill buckets at once at the end of each window of that length, not continuously",
    )
    add(
        "--limit",
        action="append",
        default=[],
        metavar="MODEL:rpm=..,tpm=..",
        help="limits of one model, or shared limits of a pattern such as claude-opus-*",
    )
    add(
        "--limits-file",
        type=Path,
        help="file with limits, in TOML or JSON: rpm, tpm, models.NAME.rpm, ..",
    )
    add("--count-refused", action="store_true", help="count refused requests, too, against rpm")
    add("--per-key", action="store_true", help="give each API key limits of its own")
    add(
        "--headers",
        choices=HEADER_STYLES,
        default="true",
        help="what rate-limit headers say (default: true, what is left of the minute; bucket: what "
        "is left in the bucket)",
    )


def _add_ramp(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--ramp-floor",
        type=_positive,
        metavar="TPM",
        help="input tokens a minute that need no ramp-up",
    )
    add(
        "--ramp-growth",
        type=_between(0, 1000),
        help="allowed growth in one window (default: 0.5, by half)",
    )
    add(
        "--ramp-window-s",
        type=_between(0.1, 86_400),
        help="length of that window in seconds (default: 900)",
    )


def _add_faults(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--fail",
        action="append",
        default=[],
        metavar="FAULT=SHARE,..",
        help="share of calls that fail, such as 429:retry-after=2=0.01,500=0.02,slow:ms=3000=0.01",
    )
    add("--key", help="accept only this API key (default: any, or none)")
    add("--seed", type=int, default=0, help="seed of random latencies and faults (default: 0)")
    add(
        "--chars-per-token",
        type=_between(0.1, 100),
        default=4.0,
        help="characters that count as one token (default: 4)",
    )
    add("--strict-models", default="", metavar="A,B", help="answer 404 to all other models")
    add(
        "--price",
        action="append",
        default=[],
        metavar="MODEL:input=..,output=..",
        help="price in USD per million tokens (default: those of genai-prices)",
    )


#: Beyond a spread of 5 one latency or length in a hundred is above 100,000 medians.
SIGMA = _between(0, 5)
