"""JWK sets (RFC 7517) that verify tokens: one that stays, and one in a file that may be replaced while we run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

LOOK_AGAIN_SECONDS = 0.1
"""A flood of made-up key ids costs ten looks at the file per second, each some microseconds."""


class Keys(Protocol):
    """Keys by id. `generation` changes whenever the keys do."""

    generation: int

    def find_key(self, kid: str) -> Key | None:
        """The key with this id."""


class FixedKeys:
    """Keys that stay as they are."""

    def __init__(self, keys: KeySet) -> None:
        self.generation = 0
        self._by_id = {key.kid: key for key in keys}

    def find_key(self, kid: str) -> Key | None:
        return self._by_id.get(kid)


class KeyFile:
    """The keys in a file. It is looked at again when somebody asks for a key that it did not hold, or by `refresh`:
    no timer, no restart. A file that cannot be read then leaves the keys as they were."""

    def __init__(
        self,
        path: Path,
        *,
        on_change: Callable[[list[str]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_change` is given the new ids. Raises OSError, ValueError when the file cannot be read now."""
        self._on_change = on_change
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._read_stamp()
        self.generation = 0
        self.keys = read_key_set(path)
        self._by_id = {key.kid: key for key in self.keys}

    def find_key(self, kid: str) -> Key | None:
        """The key with this id."""
        if kid not in self._by_id and self._clock() - self._looked_at >= LOOK_AGAIN_SECONDS:
            self.refresh()
        return self._by_id.get(kid)

    @property
    def ids(self) -> list[str]:
        """Their ids, the oldest first."""
        return [str(key.kid) for key in self.keys]

    @property
    def newest(self) -> Key:
        """The key that signs: the last one of the file."""
        return self.keys.keys[-1]

    def refresh(self) -> None:
        """Reads the file again if it was replaced."""
        self._looked_at = self._clock()
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            keys = read_key_set(self._path)
        except (OSError, ValueError):
            return
        self._stamp, self.keys = stamp, keys
        self._by_id = {key.kid: key for key in keys}
        self.generation += 1
        self._on_change(self.ids)

    def _read_stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size


def read_key_set(path: Path) -> KeySet:
    """The JWK set in a file. Raises OSError, ValueError."""
    try:
        return KeySet.import_key_set(json.loads(path.read_text()))
    except (JoseError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no JWK set") from error
