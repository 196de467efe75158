"""One process of the gateway, as `headgate gateway --workers N` and `headgate up` start it."""

from __future__ import annotations

import argparse
import sys

from headgate.shared import settings
from headgate.shared.errors import HeadgateError


def main(arguments: list[str]) -> int:
    """Serve on the address that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="headgate.producer.gateway")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--shared", action="store_true", help="other processes have the port, too")
    given = parser.parse_args(arguments)
    from headgate.producer.gateway.server import serve

    try:
        return serve(settings.load(), host=given.host, port=given.port, is_shared=given.shared)
    except HeadgateError as error:
        print(f"headgate: {error}", file=sys.stderr)  # noqa: T201  a program of its own
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
