"""Sends records to Kafka: idempotently, in order, and not before all replicas in sync have them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer


class Outgoing(NamedTuple):
    """A record that is to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Producer:
    """A producer that is made when it is first needed, so that its app starts without it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Returns when Kafka has all of them. Records of one key keep their order. Raises aiokafka.errors.KafkaError:
        then some may be there, and sending all of them again puts them behind each other in order once more."""
        producer = await self._started()
        waiting = [
            await producer.send(record.topic, value=record.value, key=record.key, headers=list(record.headers))
            for record in records
        ]
        await asyncio.gather(*waiting)

    async def open(self) -> None:
        """Nothing: it is made when it is first needed."""

    async def close(self) -> None:
        """Closes the producer."""
        if self._producer is not None:
            await self._producer.stop()

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer
