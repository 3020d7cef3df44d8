"""Channels: ways out of the system that a user sets up. Their names, their secrets' form, and the verification code."""

from __future__ import annotations

import base64
import hashlib
import hmac

WEBHOOK = "webhook"
EMAIL = "email"
CHANNELS = (WEBHOOK, EMAIL)

SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of Standard Webhooks, no secret
CODE_LENGTH = 10


def encode_secret(secret: bytes) -> str:
    """A signing secret as its user is shown it (Standard Webhooks: `whsec_` and base64)."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def verification_code(secret: bytes, channel_id: str) -> str:
    """What proves that whoever sets a channel receives what is sent over it: ten letters and digits (50 bits), derived
    from the channel's secret. The channel's id is the nonce: every setting of a channel has a new one."""
    digest = hmac.digest(secret, f"verification:{channel_id}".encode(), "sha256")
    return base64.b32encode(digest).decode()[:CODE_LENGTH]


def hash_code(code: str) -> bytes:
    """What is kept of a code by those who compare it. Spaces, hyphens and case do not matter."""
    return hashlib.sha256(code.replace(" ", "").replace("-", "").upper().encode()).digest()
