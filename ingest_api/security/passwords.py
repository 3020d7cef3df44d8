"""Password hashes (argon2id, RFC 9106), computed on threads of their own so that a login storm stalls no send."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError


class Passwords:
    """Hashes and checks passwords. Argon2 is meant to be slow (tens of milliseconds)."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._hasher = PasswordHasher()
        self._nobodys_hash = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash to store."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._hasher.hash, password)

    def is_correct(self, password: str, password_hash: str | None) -> bool:
        """Whether the password belongs to the hash. Takes as long when there is no hash, so that the time of an
        answer does not tell who is registered. Blocks: call it on the executor's threads."""
        try:
            self._hasher.verify(password_hash or self._nobodys_hash, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None
