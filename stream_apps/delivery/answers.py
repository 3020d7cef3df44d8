"""Answers that a client need not get twice (ETag), and that travel smaller where that pays (gzip)."""

from __future__ import annotations

import gzip
import re
from hashlib import blake2b

from fastapi import Request, Response

COMPRESSED_FROM_BYTES = 1400
"""What is smaller fits into one packet anyway."""
COMPRESSION_LEVEL = 1
"""Pages of messages shrink to a fifth at the lowest level; the others cost several times as much for little more."""

_REFUSED = re.compile(r";\s*q=0(\.0{0,3})?\s*$")


def answer_json(request: Request, body: bytes) -> Response:
    """The body, or 304 if the client has it (RFC 9110, section 13.1.2: tags are compared weakly)."""
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
    if is_known(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if len(body) >= COMPRESSED_FROM_BYTES and accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
    return Response(body, media_type="application/json", headers=headers)


def is_known(tag: str, if_none_match: str) -> bool:
    """Whether a tag is among those of the header `If-None-Match`."""
    known = [each.strip() for each in if_none_match.split(",")]
    return tag in known or tag.removeprefix("W/") in known or "*" in known


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header `Accept-Encoding` names gzip, and does not refuse it (RFC 9110, section 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        if part.partition(";")[0].strip() in {"gzip", "*"}:
            return _REFUSED.search(part) is None
    return False
