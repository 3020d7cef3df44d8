"""`python -m infra.caddy`: makes routes.caddyfile anew, after a program has got another operation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx

from infra.caddy.routes import PROGRAMS, operations_of, render

FILE = Path(__file__).with_name("routes.caddyfile")


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.caddy",
        description="Writes infra/caddy/routes.caddyfile from the OpenAPI documents that the running programs serve.",
        epilog="Example, with the system that `make up` starts: python -m infra.caddy",
    )
    parser.add_argument("--ingest-api", default="http://127.0.0.1:8000", metavar="URL", help="[%(default)s]")
    parser.add_argument("--delivery", default="http://127.0.0.1:8001", metavar="URL", help="[%(default)s]")
    arguments = parser.parse_args()
    operations = []
    for program in PROGRAMS:
        url = f"{getattr(arguments, program)}/openapi.json"
        try:
            answer = httpx.get(url, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            print(f"{url} does not answer ({error}): start the system with `make up`.", file=sys.stderr)
            return 1
        operations += operations_of(program, answer.json())
    FILE.write_text(render(operations), "utf-8")
    print(f"Wrote {FILE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
