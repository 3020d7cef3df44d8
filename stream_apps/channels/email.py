"""The adapter for e-mail: one mail per letter, handed to the operator's mail server by SMTP."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from typing import Literal, NamedTuple

from stream_apps.channels.model import Delivered, Letter, Message, Outcome, Refused, Target, TryLater, Unavailable

SENDERS = 4
NO_SUCH_MAILBOX = {550, 551, 553}


class MailServer(NamedTuple):
    """Where mail is handed over, and by whom. No host: nowhere."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str
    password: str
    sender: str


class EmailAdapter:
    """Sends mail over connections of a few threads. What the mail server cannot do is not held against a target."""

    def __init__(self, server: MailServer, *, timeout_seconds: float = 30.0, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._tls = tls or ssl.create_default_context()
        self._executor = ThreadPoolExecutor(SENDERS, thread_name_prefix="email")

    async def open(self) -> None:
        """Nothing: every mail has its connection."""

    async def close(self) -> None:
        """Waits for what is being sent."""
        await asyncio.to_thread(self._executor.shutdown)

    async def challenge(self, target: Target, code: str) -> Outcome:
        """Mails the verification code."""
        mail = self._mail(target, "Your verification code", f"verification.{target.channel_id}")
        mail.set_content(
            f"The code is {code}\n\nIt lets your messages in Chat4All be sent to this address. If you did not ask for"
            " that, do nothing.\n"
        )
        return await self._send(mail)

    async def deliver(self, target: Target, letter: Letter) -> Outcome:
        """Mails the messages, but for those that are deleted."""
        shown = [message for message in letter.messages if not message.is_deleted]
        if not shown:
            return Delivered()
        names = sorted({message.actor_name or "somebody" for message in shown})
        sender = names[0] if len(names) == 1 else f"{names[0]} and others"
        subject = f"{letter.title or 'Chat4All'}: {sender} wrote"
        mail = self._mail(target, subject, f"{target.channel_id}.{letter.conversation_id}.{shown[-1].seq}")
        mail.set_content("\n\n".join(_paragraph(message) for message in shown) + "\n")
        return await self._send(mail)

    def _mail(self, target: Target, subject: str, message_id: str) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        name, address = parseaddr(self._server.sender)
        mail["From"] = Address(name, addr_spec=address)
        mail["To"] = Address(addr_spec=target.address)
        mail["Subject"] = " ".join(subject.split())[:200]
        mail["Message-ID"] = f"<{message_id}@{address.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday is to answer
        return mail

    async def _send(self, mail: EmailMessage) -> Outcome:
        if not self._server.host:
            return Unavailable("No mail server is configured.")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._hand_over, mail)

    def _hand_over(self, mail: EmailMessage) -> Outcome:
        try:
            with self._connect() as connection:
                connection.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            (code, _), *_ = error.recipients.values()
            if code in NO_SUCH_MAILBOX:
                return Refused(f"The mail server knows no such mailbox ({code}).")
            return TryLater(f"The mail server does not take mail for it now ({code}).")
        except smtplib.SMTPDataError as error:
            return TryLater(f"The mail server does not take the mail ({error.smtp_code}).")
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return Unavailable(f"The mail server cannot be used ({type(error).__name__}).")
        return Delivered()

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=self._timeout_seconds, context=self._tls
            )
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=self._timeout_seconds)
        try:
            if server.security == "starttls":
                connection.starttls(context=self._tls)
            if server.username:
                connection.login(server.username, server.password)
        except BaseException:
            connection.close()
            raise
        return connection


def _paragraph(message: Message) -> str:
    body = message.body or {}
    text = body.get("text") or f"[{body.get('name', 'a file')}] {body.get('url', '')}".rstrip()
    edited = ", edited" if message.is_edited else ""
    return f"{message.actor_name or 'somebody'} ({message.created_at[:16].replace('T', ' ')} UTC{edited}):\n{text}"
