"""Signed heads: what a file outside of the database says about the chain. Whoever rewrites the whole log, or cuts off
its end, still cannot make the signatures that were given before."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.audit.chain import Fault
from ingest_api.database import audit_head, transaction
from schemas.key_files import KeyFile
from schemas.problems import ProblemError
from schemas.tokens import ALGORITHM

logger = logging.getLogger(__name__)

HEAD_TYPE = "audit-head+jws"


class Head(NamedTuple):
    """The chain's newest entry, and the hash that stands for everything up to it."""

    position: int
    entry_hash: bytes


def sign_head(head: Head, key: Key, *, now: float) -> str:
    """The head as a compact JWS (RFC 7515), whose `typ` keeps it from being taken for a token."""
    payload = {"position": head.position, "entry_hash": head.entry_hash.hex(), "signed_at": int(now)}
    return jws.serialize_compact({"alg": ALGORITHM, "typ": HEAD_TYPE, "kid": key.kid}, json.dumps(payload), key)


class SignedHeads:
    """The heads of a file, checked as their entries are read."""

    def __init__(self, lines: Iterable[str], find_key: Callable[[str], Key | None]) -> None:
        self.faults: list[Fault] = []
        self.unknown_keys: set[str] = set()
        self.count = 0
        self._heads: dict[int, list[bytes]] = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(number, line.strip(), find_key)

    def read(self, position: int, entry_hash: bytes) -> Iterator[Fault]:
        """The faults that an entry's heads tell of."""
        if any(signed != entry_hash for signed in self._heads.pop(position, ())):
            yield Fault(position, "a signed head tells of another entry here")

    def finish(self, position: int, *, first: int) -> Iterator[Fault]:
        """The faults of heads whose entries were not read: `first` to `position` were."""
        for missing in sorted(self._heads):
            if missing > position:
                yield Fault(missing, f"a signed head tells of this entry, but the log ends at {position}")
            elif missing >= first:
                yield Fault(missing, "a signed head tells of this entry, which is not there")

    def _take(self, number: int, line: str, find_key: Callable[[str], Key | None]) -> None:
        try:
            kid = str(jws.extract_compact(line.encode()).headers().get("kid"))
            key = find_key(kid)
            if key is None:
                self.unknown_keys.add(kid)
                return
            signed = jws.deserialize_compact(line, key, algorithms=[ALGORITHM])
            if signed.headers().get("typ") != HEAD_TYPE:
                raise ValueError("another type")
            payload = json.loads(signed.payload)
            self._heads.setdefault(int(payload["position"]), []).append(bytes.fromhex(payload["entry_hash"]))
            self.count += 1
        except (JoseError, ValueError, KeyError, TypeError):
            self.faults.append(Fault(0, f"line {number} of the signed heads is no signed head, or was changed"))


async def read_head(engine: AsyncEngine) -> Head:
    """The head that the database keeps. Raises DatabaseUnavailable."""
    async with transaction(engine) as connection:
        row = (await connection.execute(select(audit_head.c.position, audit_head.c.entry_hash))).one()
    return Head(row.position, row.entry_hash)


class HeadExport:
    """Appends the head to a file whenever it has changed, at an interval and when it is closed."""

    def __init__(
        self,
        path: Path | None,
        read_head: Callable[[], Awaitable[Head]],
        keys: KeyFile,
        *,
        interval_seconds: float,
    ) -> None:
        self._path = path
        self._read_head = read_head
        self._keys = keys
        self._interval_seconds = interval_seconds
        self._last: Head | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to export, if there is a file to export to."""
        if self._path is not None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Exports once more, and ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._export_or_log()

    async def export(self) -> bool:
        """Whether the head had changed and was appended. Raises OSError, DatabaseUnavailable."""
        head = await self._read_head()
        if self._path is None or head == self._last or not head.position:
            return False
        self._keys.refresh()
        await asyncio.to_thread(append_line, self._path, sign_head(head, self._keys.newest, now=time.time()))
        self._last = head
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self._export_or_log()

    async def _export_or_log(self) -> None:
        try:
            await self.export()
        except (OSError, ProblemError) as error:
            logger.warning("The head of the audit log could not be exported: %s", error)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file that its owner alone can read, and returns when it is on disk. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
