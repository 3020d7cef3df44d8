"""The gateway in its production configuration, with a certificate and an upstream in the place of each program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acme import AcmeServer, await_certificate, production_variables, start_acme_server
from tests.caddy import start_caddy
from tests.upstream import Upstream, start_upstream

DOMAIN = "chat.example"


@dataclass(frozen=True, slots=True)
class ProductionGateway:
    """It listens on `acme.tls_port`."""

    acme: AcmeServer
    api: Upstream
    delivery: Upstream

    def seen(self) -> list[tuple[str, str, bytes]]:
        """Method, target and body of what came through."""
        return [(seen.method, seen.target, seen.body) for seen in (*self.api.requests, *self.delivery.requests)]


@contextmanager
def start_production_gateway(folder: Path) -> Iterator[ProductionGateway]:
    """Returns when it has its certificate, which it keeps in the folder."""
    with (
        start_acme_server(certificate_seconds=90 * 24 * 3600) as acme,
        start_upstream("ingest_api") as api,
        start_upstream("delivery") as delivery,
    ):
        variables = {
            **production_variables(acme, folder, domain=DOMAIN),
            "CHAT4ALL_INGEST_API_UPSTREAM": f"127.0.0.1:{api.port}",
            "CHAT4ALL_DELIVERY_UPSTREAM": f"127.0.0.1:{delivery.port}",
        }
        with start_caddy(acme.tls_port, variables, config="production.caddyfile"):
            await_certificate(acme, DOMAIN)
            yield ProductionGateway(acme, api, delivery)
