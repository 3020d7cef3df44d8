"""The adapters against real servers: a web server with TLS, and a mail server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp.abc import ResolveResult
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from stream_apps.channels.addresses import CheckingResolver
from stream_apps.channels.email import EmailAdapter, MailServer
from stream_apps.channels.model import Delivered, Letter, Message, Outcome, Refused, Target, TryLater, Unavailable
from stream_apps.channels.webhook import WebhookAdapter
from tests.integration.servers import free_port
from tests.receivers import Post, receive_mail, receive_webhooks

LOOPBACK = (ip_network("127.0.0.0/8"),)
HOST = "hooks.test"


def target(address: str, channel: str = "webhook") -> Target:
    return Target(str(uuid.uuid4()), str(uuid.uuid4()), channel, address, (b"k" * 32,))


def letter(*texts: str | None, title: str | None = "plans") -> Letter:
    messages = [
        Message(
            str(uuid.uuid4()),
            seq,
            str(uuid.uuid4()),
            "Alice",
            "2026-01-02T03:04:05.000000Z",
            None if text is None else {"type": "text", "text": text},
        )
        for seq, text in enumerate(texts, 2)
    ]
    return Letter(str(uuid.uuid4()), title, messages)


def make_certificate(folder: Path, name: str) -> Path:
    """A file with a self-signed certificate of this name and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return path


def resolver_to_loopback() -> CheckingResolver:
    async def resolve(host: str, port: int, _family: socket.AddressFamily) -> list[ResolveResult]:
        assert host == HOST
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    return CheckingResolver(LOOPBACK, resolve=resolve)


async def deliver(adapter: WebhookAdapter | EmailAdapter, to: Target, what: Letter) -> Outcome:
    await adapter.open()
    try:
        return await adapter.deliver(to, what)
    finally:
        await adapter.close()


async def test_over_tls_the_name_is_the_host_s_though_the_connection_goes_to_the_checked_address(
    tmp_path: Path,
) -> None:
    certificate = make_certificate(tmp_path, HOST)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    names: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with receive_webhooks(tls=tls) as receiver:
        adapter = WebhookAdapter(resolver=resolver_to_loopback(), tls=trusting)
        outcome = await deliver(adapter, target(f"https://{HOST}:{receiver.port}/hook"), letter("x"))
        assert outcome == Delivered()
        assert names == [HOST]
        assert receiver.taken[0].headers["host"] == f"{HOST}:{receiver.port}"


@pytest.mark.parametrize("name", ["other.test", HOST])
async def test_a_certificate_of_another_name_or_of_nobody_we_trust_is_refused(tmp_path: Path, name: str) -> None:
    certificate = make_certificate(tmp_path, name)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate)) if name != HOST else None
    async with receive_webhooks(tls=tls) as receiver:
        adapter = WebhookAdapter(resolver=resolver_to_loopback(), tls=trusting)
        outcome = await deliver(adapter, target(f"https://{HOST}:{receiver.port}/hook"), letter("x"))
        assert outcome == TryLater("It cannot be reached.")
        assert receiver.came == []


async def test_a_name_with_a_private_address_is_refused_before_a_connection_is_made() -> None:
    connected = asyncio.Event()

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    async def resolve(host: str, port: int, _family: socket.AddressFamily) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        adapter = WebhookAdapter(resolver=CheckingResolver(resolve=resolve), allow_http=True)
        outcome = await deliver(adapter, target(f"http://{HOST}:{port}/"), letter("x"))
        literal = await deliver(WebhookAdapter(allow_http=True), target(f"http://127.0.0.1:{port}/"), letter("x"))
        await asyncio.sleep(0.1)
        assert not connected.is_set()
    assert outcome == literal == TryLater("The host's address is not public.")


async def test_a_target_that_does_not_answer_is_waited_for_no_longer_than_told() -> None:
    async def respond(_: Post) -> int:
        await asyncio.sleep(60)
        return 200

    async with receive_webhooks(respond) as receiver:
        adapter = WebhookAdapter(allowed=LOOPBACK, allow_http=True, timeout_seconds=0.3)
        assert await deliver(adapter, target(receiver.url()), letter("x")) == TryLater("It did not answer in time.")


async def test_an_answer_without_an_end_is_not_read() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(pour, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        adapter = WebhookAdapter(allowed=LOOPBACK, allow_http=True, timeout_seconds=10)
        assert await deliver(adapter, target(f"http://127.0.0.1:{port}/"), letter("x")) == Delivered()
    assert sent < 64 * 2**20


async def test_http_is_sent_to_nobody_unless_it_is_allowed() -> None:
    async with receive_webhooks() as receiver:
        outcome = await deliver(WebhookAdapter(allowed=LOOPBACK), target(receiver.url()), letter("x"))
        assert receiver.came == []
    assert outcome == TryLater("The address is not https.")


def mail_server(port: int, host: str = "127.0.0.1") -> MailServer:
    return MailServer(host, port, "none", "", "", "Chat4All <chat@chat.test>")


async def test_a_mail_has_the_messages_but_for_deleted_ones() -> None:
    port = free_port()
    async with receive_mail(port) as server:
        adapter = EmailAdapter(mail_server(port))
        to = target("bob@example.org", "email")
        assert (
            await deliver(adapter, to, letter("grüß dich", None, "bye", title="a\r\nBcc: eve@evil.test")) == Delivered()
        )
        assert await deliver(EmailAdapter(mail_server(port)), to, letter(None)) == Delivered()
    (mail,) = server.mails
    text = mail.get_content()
    assert (mail["From"], mail["To"]) == ("Chat4All <chat@chat.test>", "bob@example.org")
    assert mail["Subject"] == "a Bcc: eve@evil.test: Alice wrote"
    assert mail["Bcc"] is None
    assert text.index("grüß dich") < text.index("bye")
    assert "Alice (2026-01-02 03:04 UTC)" in text


async def test_a_mailbox_that_is_not_there_is_refused_for_good() -> None:
    port = free_port()
    async with receive_mail(port) as server:
        server.unknown.add("nobody@example.org")
        outcome = await deliver(EmailAdapter(mail_server(port)), target("nobody@example.org", "email"), letter("x"))
    assert outcome == Refused("The mail server knows no such mailbox (550).")


async def test_a_mail_server_that_is_away_or_not_configured_is_not_the_target_s_fault() -> None:
    to = target("bob@example.org", "email")
    away = await deliver(EmailAdapter(mail_server(free_port())), to, letter("x"))
    none = await deliver(EmailAdapter(mail_server(25, "")), to, letter("x"))
    assert away == Unavailable("The mail server cannot be used (ConnectionRefusedError).")
    assert none == Unavailable("No mail server is configured.")


async def test_mail_is_handed_over_under_tls_after_a_login(tmp_path: Path) -> None:
    port = free_port()
    certificate = make_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))

    def authenticate(_server: object, _session: object, _envelope: object, _mechanism: str, data: object) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"chat", b"secret")
        return AuthResult(success=is_right)

    async with receive_mail(
        port, tls_context=tls, require_starttls=True, authenticator=authenticate, auth_required=True
    ) as server:
        settings = mail_server(port, "localhost")._replace(security="starttls", username="chat", password="secret")
        to = target("bob@example.org", "email")
        assert await deliver(EmailAdapter(settings, tls=trusting), to, letter("x")) == Delivered()
        wrong = settings._replace(password="wrong")
        assert isinstance(
            await deliver(EmailAdapter(wrong, tls=trusting, timeout_seconds=2), to, letter("x")), Unavailable
        )
        unencrypted = settings._replace(security="none")
        assert isinstance(await deliver(EmailAdapter(unencrypted), to, letter("x")), Unavailable)
    assert len(server.mails) == 1
