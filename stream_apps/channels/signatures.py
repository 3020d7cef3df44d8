"""Signs webhook requests as Standard Webhooks 1.0 says (standardwebhooks.com): HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


def sign(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers that prove where a request comes from and when it was made. One signature per secret: while a secret
    is being replaced, a receiver finds the one that it can check. `timestamp`: seconds since the epoch."""
    content = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, "sha256")).decode() for secret in secrets)
    return {
        ID_HEADER: webhook_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(f"v1,{signature}" for signature in signatures),
    }
