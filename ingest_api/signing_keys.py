"""`python -m ingest_api.signing_keys`: makes the key pair that signs access tokens, if there is none yet."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from joserfc.jwk import ECKey, KeySet

from schemas.tokens import ALGORITHM


def make_signing_keys(private: Path, public: Path) -> bool:
    """Writes a private JWK set (readable by its owner alone) and its public half (RFC 7517). Returns whether the
    private one was made now; one that exists is kept. Raises OSError, ValueError."""
    is_new = not private.exists()
    if is_new:
        key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": ALGORITHM}, auto_kid=True)
        _write(private, KeySet([key]), mode=0o600, is_private=True)
    _write(public, read_key_set(private), mode=0o644, is_private=False)
    return is_new


def read_key_set(path: Path) -> KeySet:
    """The JWK set in a file. Raises OSError, ValueError."""
    return KeySet.import_key_set(json.loads(path.read_text()))


def _write(path: Path, keys: KeySet, *, mode: int, is_private: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(keys.as_dict(private=is_private), file, indent=2)
    temporary.replace(path)


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m ingest_api.signing_keys", description=__doc__)
    parser.add_argument("--private", type=Path, required=True, help="file of the private JWK set")
    parser.add_argument("--public", type=Path, required=True, help="file of the public JWK set, for readers")
    arguments = parser.parse_args()
    try:
        is_new = make_signing_keys(arguments.private, arguments.public)
    except (OSError, ValueError) as error:
        print(f"The signing keys could not be made: {error}", file=sys.stderr)
        return 1
    print("The signing keys were made." if is_new else "The signing keys were there already.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
