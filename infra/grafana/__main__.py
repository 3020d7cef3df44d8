"""`python -m infra.grafana`: writes infra/grafana/dashboards/*.json from the boards; with `--check` it writes nothing,
and exit status 1 says that a file is not what its board makes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.grafana.boards import BOARDS
from infra.grafana.build import to_json

FOLDER = Path(__file__).resolve().parent / "dashboards"


def files() -> dict[str, str]:
    """File name -> content, of every board."""
    return {f"{board.uid}.json": to_json(board) for board in BOARDS}


def differing(folder: Path) -> list[str]:
    """Names of the files that are missing, outdated, or of no board."""
    wanted = files()
    there = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.grafana", description=__doc__, epilog="example: python -m infra.grafana --check"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is outdated")
    different = differing(FOLDER)
    if parser.parse_args().check:
        if different:
            print(f"Outdated: {', '.join(different)}. Run `python -m infra.grafana` and commit what it writes.")
        return 1 if different else 0
    wanted = files()
    FOLDER.mkdir(exist_ok=True)
    for name in different:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], "utf-8")
        else:
            (FOLDER / name).unlink()
    print(f"{len(different)} of {len(wanted)} dashboards written to {FOLDER}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
