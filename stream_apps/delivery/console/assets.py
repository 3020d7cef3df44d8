"""The console's files, read once: their bytes, their tags, and what a browser is told about them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files

PAGE = "index.html"
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing but the files of this origin, no inline script or style, no frame, and no text that becomes markup."""
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `tag` changes with its bytes."""

    body: bytes
    compressed: bytes
    tag: str
    media_type: str


def read_assets() -> Mapping[str, Asset]:
    """File name -> file, of all that the console consists of. Raises OSError."""
    folder = files("stream_apps.delivery.console") / "static"
    return {each.name: make_asset(each.name, each.read_bytes()) for each in folder.iterdir()}


def make_asset(name: str, body: bytes) -> Asset:
    """The file of this name and content. Raises KeyError if its kind is not one of MEDIA_TYPES."""
    return Asset(
        body=body,
        compressed=gzip.compress(body, mtime=0),
        tag=f'W/"{blake2b(body, digest_size=12).hexdigest()}"',
        media_type=MEDIA_TYPES[name.rpartition(".")[2]],
    )
