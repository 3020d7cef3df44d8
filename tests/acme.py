"""A real ACME server on loopback (Debian's pebble), whose certificates live for seconds."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.local import packages
from tests.caddy import is_listening
from tests.integration.servers import free_port

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class AcmeServer:
    """`directory` is its address, `root_file` what verifies its own TLS, `issued_root` (PEM) what verifies the
    certificates that it issues, `http_port` and `tls_port` where it looks for the answers to its challenges. Every name
    resolves to loopback for it."""

    directory: str
    root_file: Path
    issued_root: str
    http_port: int
    tls_port: int


@contextmanager
def start_acme_server(*, certificate_seconds: int) -> Iterator[AcmeServer]:
    """Installs pebble if it is missing, and runs it."""
    packages.install(["pebble"] if shutil.which("pebble") is None else [], report=print)
    folder = Path(tempfile.mkdtemp(prefix="chat4all-acme-"))
    port, http_port, tls_port, dns_port, management_port = (free_port() for _ in range(5))
    _write_certificate(folder)
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management_port}",
        "certificate": str(folder / "cert.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "certificateValidityPeriod": certificate_seconds,
    }
    (folder / "config.json").write_text(json.dumps({"pebble": settings}))
    unused = [word for option in ("http01", "https01", "tlsalpn01", "defaultIPv6") for word in (f"-{option}", "")]
    dns = f"127.0.0.1:{dns_port}"
    commands = [
        ["pebble-challtestsrv", "-dns01", dns, *unused, "-management", f"127.0.0.1:{free_port()}"],
        ["pebble", "-config", str(folder / "config.json"), "-dnsserver", dns],
    ]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        deadline = time.monotonic() + START_SECONDS
        while not (is_listening(port) and is_listening(management_port)):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        own = ssl.create_default_context(cafile=folder / "cert.pem")
        root = httpx.get(f"https://127.0.0.1:{management_port}/roots/0", verify=own, trust_env=False).raise_for_status()
        yield AcmeServer(f"https://127.0.0.1:{port}/dir", folder / "cert.pem", root.text, http_port, tls_port)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def _write_certificate(folder: Path) -> None:
    """A certificate that verifies itself, for the server's own TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME server of a test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def production_variables(acme: AcmeServer, folder: Path, *, domain: str) -> dict[str, str]:
    """What the gateway's production configuration is told to get its certificates from this server."""
    return {
        "CHAT4ALL_DOMAIN": domain,
        "CHAT4ALL_ACME_EMAIL": f"operator@{domain}",
        "CHAT4ALL_ACME_DIRECTORY": acme.directory,
        "CHAT4ALL_ACME_ROOT_FILE": str(acme.root_file),
        "CHAT4ALL_RENEW_INTERVAL": "1s",
        "CHAT4ALL_CERTIFICATES_DIR": str(folder),
        "CHAT4ALL_GATEWAY_HOST": "127.0.0.1",
        "CHAT4ALL_HTTP_PORT": str(acme.http_port),
        "CHAT4ALL_HTTPS_PORT": str(acme.tls_port),
    }


def verifying_context(acme: AcmeServer) -> ssl.SSLContext:
    """Trusts what the server issues, and nothing else."""
    return ssl.create_default_context(cadata=acme.issued_root)


def served_serial(acme: AcmeServer, domain: str) -> int:
    """The serial number of the certificate that the gateway shows to someone who verifies it. Raises OSError."""
    with (
        socket.create_connection(("127.0.0.1", acme.tls_port), 10) as connection,
        verifying_context(acme).wrap_socket(connection, server_hostname=domain) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def await_certificate(acme: AcmeServer, domain: str, *, other_than: int = 0) -> int:
    """Waits until a certificate is served that verifies (and is another one). Its serial number."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            serial = served_serial(acme, domain)
        except OSError:
            serial = other_than
        if serial != other_than:
            return serial
        assert time.monotonic() < deadline, "no certificate came"
        time.sleep(0.1)
