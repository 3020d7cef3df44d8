"""Password hashes (argon2id, RFC 9106), computed on threads of their own so that a login storm stalls no send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.problems import ProblemError

Result = TypeVar("Result")


class LoginsSaturated(ProblemError):
    """Too many logins wait for their turn; try again."""

    code, title, status = "logins-saturated", "Logins saturated", 503

    def __init__(self) -> None:
        super().__init__("Too many logins wait for their turn; try again.", headers={"Retry-After": "1"})


class Passwords:
    """Hashes and checks passwords. Argon2 is meant to be slow (tens of milliseconds), so only so many may wait: the
    next one is told at once. Both calls raise LoginsSaturated."""

    def __init__(self, executor: ThreadPoolExecutor, *, queue_size: int = 64) -> None:
        self._executor = executor
        self._hasher = PasswordHasher()
        self._nobodys_hash = self._hasher.hash("nobody has this password")
        self._queue_size = queue_size
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash to store."""
        return await self._run(lambda: self._hasher.hash(password))

    async def is_correct(self, password: str, password_hash: str | None) -> bool:
        """Whether the password belongs to the hash. Takes as long when there is no hash (or an empty one, which no
        password has), so that the time of an answer does not tell who is registered."""
        return await self._run(lambda: self._is_correct(password, password_hash))

    def _is_correct(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobodys_hash, password)
        except (VerificationError, InvalidHashError):
            return False
        return bool(password_hash)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= self._queue_size:
            raise LoginsSaturated
        self._waiting += 1
        future = self._executor.submit(work)
        # Whoever hangs up leaves the work behind: it counts until it is done.
        loop = asyncio.get_running_loop()
        waiter = asyncio.wrap_future(future)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count_done))
        return await waiter

    def _count_done(self) -> None:
        self._waiting -= 1
