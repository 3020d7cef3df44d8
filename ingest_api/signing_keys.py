"""`python -m ingest_api.signing_keys`: makes the key pair that signs access tokens if there is none yet; rotates, lists
and prunes keys. Whatever runs picks up what changes here (schemas/key_files.py)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from joserfc.jwk import ECKey, KeySet

from schemas.jwts import LEEWAY_SECONDS
from schemas.key_files import read_key_set
from schemas.tokens import ALGORITHM, LIFETIME_SECONDS

CREATED_AT, RETIRED_AT = "chat4all_created_at", "chat4all_retired_at"
"""Members of a JWK that say when it was made and when it last signed, in seconds since the epoch."""
OVERLAP_SECONDS = LIFETIME_SECONDS + LEEWAY_SECONDS
"""How long a key verifies after it was replaced: until the last token that it signed has expired."""

command = typer.Typer(
    help="The keys that sign access tokens. Without a command: makes them if there are none yet.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The private JWK set (readable by its owner alone) and its public half (RFC 7517)."""

    private: Path
    public: Path


def make_signing_keys(private: Path, public: Path) -> bool:
    """Writes both files. Returns whether the private one was made now; one that exists is kept. Raises OSError,
    ValueError."""
    is_new = not private.exists()
    keys = KeySet([_make_key(time.time())]) if is_new else read_key_set(private)
    _write_both(KeyFiles(private, public), keys)
    return is_new


def rotate_signing_keys(files: KeyFiles, *, now: float) -> str:
    """Adds a key, which signs from now on; those before it only verify. Returns its id. Raises OSError, ValueError."""
    retired: list[Any] = [{RETIRED_AT: int(now), **key.as_dict(private=True)} for key in read_key_set(files.private)]
    new = _make_key(now)
    _write_both(files, KeySet.import_key_set({"keys": [*retired, new.as_dict(private=True)]}))
    return str(new.kid)


def prune_signing_keys(files: KeyFiles, *, now: float) -> list[str]:
    """Removes the keys whose last token has expired. Returns their ids. Raises OSError, ValueError."""
    keys = read_key_set(files.private)
    kept = [key for key in keys if not _is_over(key.as_dict(private=True), now)]
    _write_both(files, KeySet(kept))
    return [str(key.kid) for key in keys if key not in kept]


def _make_key(now: float) -> ECKey:
    parameters = {"use": "sig", "alg": ALGORITHM, CREATED_AT: int(now)}
    return ECKey.generate_key("P-256", parameters=parameters, auto_kid=True)  # type: ignore[arg-type]


def _is_over(key: Mapping[str, object], now: float) -> bool:
    retired_at = key.get(RETIRED_AT)
    return isinstance(retired_at, int) and retired_at + OVERLAP_SECONDS < now


def _write_both(files: KeyFiles, keys: KeySet) -> None:
    # Who verifies learns of a key before anything is signed by it.
    _write(files.public, keys, mode=0o644, is_private=False)
    _write(files.private, keys, mode=0o600, is_private=True)


def _write(path: Path, keys: KeySet, *, mode: int, is_private: bool) -> None:
    content = json.dumps(keys.as_dict(private=is_private), indent=2)
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.replace(path)


@command.callback(invoke_without_command=True)
def make(
    context: typer.Context,
    private: Annotated[Path, typer.Option(help="file of the private JWK set", envvar="CHAT4ALL_SIGNING_KEY_FILE")],
    public: Annotated[Path, typer.Option(help="file of the public JWK set", envvar="CHAT4ALL_JWKS_FILE")],
) -> None:
    """Makes the keys if there are none yet."""
    context.obj = KeyFiles(private, public)
    if context.invoked_subcommand is None:
        is_new = make_signing_keys(private, public)
        print("The signing keys were made." if is_new else "The signing keys were there already.")


@command.command()
def rotate(context: typer.Context) -> None:
    """Adds a key that signs from now on. Old ones verify until `prune`."""
    print(f"key.rotated: {rotate_signing_keys(context.obj, now=time.time())} signs from now on.")


@command.command()
def prune(context: typer.Context) -> None:
    """Removes keys whose last token has expired."""
    removed = prune_signing_keys(context.obj, now=time.time())
    print(f"key.pruned: {', '.join(removed)}" if removed else "No key has outlived its tokens.")


@command.command(name="list")
def list_keys(context: typer.Context) -> None:
    """Shows ids, ages and what each key does."""
    for key in read_key_set(context.obj.private).as_dict(private=False)["keys"]:
        print(key["kid"], _time(key.get(CREATED_AT)), "verifies" if RETIRED_AT in key else "signs")


def _time(seconds: object) -> str:
    if not isinstance(seconds, int):
        return "(unknown)"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def main() -> None:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    try:
        command(prog_name="python -m ingest_api.signing_keys")
    except (OSError, ValueError) as error:
        typer.echo(f"The signing keys could not be read or written: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
