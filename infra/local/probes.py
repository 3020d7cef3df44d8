"""Whether a server answers: one small question each, bounded in time. A probe says no; it never raises."""

from __future__ import annotations

import http.client
import json
import socket
import struct

import psycopg

from infra.local.ports import HOST

TIMEOUT_SECONDS = 2.0
DEBEZIUM_CLASS = "io.debezium.connector.postgresql.PostgresConnector"

_API_VERSIONS = 18
"""The number of Kafka's ApiVersions request (https://kafka.apache.org/protocol.html): every broker answers it."""


def is_postgres_ready(port: int, *, database: str, user: str, password: str) -> bool:
    """Whether PostgreSQL lets this user in and answers a query."""
    try:
        with psycopg.connect(
            host=HOST, port=port, dbname=database, user=user, password=password, connect_timeout=2
        ) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def is_redis_ready(port: int, *, password: str) -> bool:
    """Whether Redis accepts the password and answers PING."""
    try:
        with socket.create_connection((HOST, port), TIMEOUT_SECONDS) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return _receive(connection, len(b"+OK\r\n+PONG\r\n")) == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def is_kafka_ready(port: int) -> bool:
    """Whether the broker answers requests (it listens earlier, but answers only once it has joined its cluster)."""
    correlation_id = 4_711
    client = b"probe"
    request = struct.pack(f">hhih{len(client)}s", _API_VERSIONS, 0, correlation_id, len(client), client)
    try:
        with socket.create_connection((HOST, port), TIMEOUT_SECONDS) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = _receive(connection, 10)
    except OSError:
        return False
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation_id, 0)


def is_connect_ready(port: int) -> bool:
    """Whether Connect's REST answers and has found Debezium's Postgres connector."""
    if _get(port, "/") is None:
        return False
    try:
        plugins = json.loads(_get(port, "/connector-plugins") or b"[]")
    except ValueError:
        return False
    return any(plugin.get("class") == DEBEZIUM_CLASS for plugin in plugins)


def is_http_ready(port: int, path: str) -> bool:
    """Whether GET of this path answers 200."""
    return _get(port, path) is not None


def _get(port: int, path: str) -> bytes | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return body if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data
