"""As much of curl as the docs use: `curl [-s] [-N] [-H "name: value"]... [-d BODY] URL`.

It prints the body. An answer other than 200 makes it fail, unlike curl: the docs show none.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main(arguments: list[str]) -> int:
    """Ask for one address; return the exit code."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    given = parser.parse_args([one if one != "-sN" else "-s" for one in arguments])
    headers = dict(line.split(": ", 1) for line in given.H)
    data = None if given.d is None else given.d.encode()
    asked = urllib.request.Request(given.url, data, headers)  # noqa: S310 (the docs' own)
    try:
        with urllib.request.urlopen(asked, timeout=60) as reply:  # noqa: S310
            sys.stdout.write(reply.read().decode() + "\n")
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{error.code}: {error.read().decode()}\n")
        return 22
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
