"""`python -m connectors`, also installed as `chat4all-connectors`."""

from __future__ import annotations

from connectors.cli import create_app


def main() -> None:
    """Runs the command line of this process."""
    create_app()(prog_name="chat4all-connectors")


if __name__ == "__main__":
    main()
