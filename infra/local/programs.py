"""The programs and steps of the stack, as data: what each runs, what it is told, what it needs, when it is healthy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.local import java, postgres, probes
from infra.local.config import StackConfig
from infra.local.ports import HOST, Ports
from infra.local.program import STACK_MARK, Program, Site, Step, mark
from infra.local.secrets import write_private
from infra.local.watchers import WATCHERS

LIMITER_RIGHTS = "~ratelimit:* resetchannels -@all +evalsha +script|load +time +get +set +ping"
"""What the API's user may do in Redis: run its script on its own keys."""

EXPORTER_RIGHTS = "resetkeys resetchannels -@all +ping +info +slowlog|len +latency|latest"
"""What the exporter's user may: read what Redis says of itself, and nothing that anybody wrote."""

GENEROUS_LIMITS = {
    "CHAT4ALL_LIMIT_USER_SENDS": "100000/10s",
    "CHAT4ALL_LIMIT_USER_COMMANDS": "10000/10s",
    "CHAT4ALL_LIMIT_CONVERSATION_SENDS": "100000/10s",
    "CHAT4ALL_LIMIT_ADDRESS_LOGINS": "10000/10s",
    "CHAT4ALL_LIMIT_ADDRESS_REGISTRATIONS": "10000/10s",
    "CHAT4ALL_LIMIT_USER_CHALLENGES": "1000/10s",
    "CHAT4ALL_LIMIT_CHANNEL_CHALLENGES": "1000/10s",
    "CHAT4ALL_LIMIT_USER_LOOKUPS": "10000/10s",
}
"""On a developer's machine one user of one address makes all the load there is: demos, tests, benchmarks."""


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _shared(site: Site) -> dict[str, str]:
    ports = site.config.ports
    return {
        STACK_MARK: str(site.config.state_dir),
        "CHAT4ALL_KAFKA_BOOTSTRAP": f"{HOST}:{ports.kafka}",
        "CHAT4ALL_ISSUER": f"http://{HOST}:{ports.gateway}",
        "PYTHONUNBUFFERED": "1",
    }


def _traced(site: Site) -> dict[str, str]:
    """Where spans go; nowhere, unless whoever starts the stack says."""
    return {"CHAT4ALL_OTLP_ENDPOINT": site.config.environ.get("CHAT4ALL_OTLP_ENDPOINT", "")}


def _database(site: Site, user: str, password: str) -> dict[str, str]:
    return {
        "CHAT4ALL_DATABASE_HOST": HOST,
        "CHAT4ALL_DATABASE_PORT": str(site.config.ports.postgres),
        "CHAT4ALL_DATABASE_NAME": postgres.DATABASE,
        "CHAT4ALL_DATABASE_USER": user,
        "CHAT4ALL_DATABASE_PASSWORD": password,
    }


def _redis(site: Site) -> dict[str, str]:
    return {
        "CHAT4ALL_REDIS_HOST": HOST,
        "CHAT4ALL_REDIS_PORT": str(site.config.ports.redis),
        "CHAT4ALL_REDIS_PASSWORD": site.secrets.redis,
    }


def _reader(site: Site) -> dict[str, str]:
    return {**_shared(site), **_database(site, "chat_reader", site.secrets.database_reader), **_redis(site)}


def _metrics(port: int) -> dict[str, str]:
    return {"CHAT4ALL_METRICS_HOST": HOST, "CHAT4ALL_METRICS_PORT": str(port)}


# --- PostgreSQL ---


def _prepare_postgres(site: Site) -> None:
    data_dir = site.config.state_dir / "postgres" / "data"
    postgres.initialize(site.account, data_dir, owner_password=site.secrets.database_owner)


def _postgres_command(site: Site) -> list[str]:
    data_dir = site.config.state_dir / "postgres" / "data"
    return postgres.server_command(
        site.account, root=site.config.root, data_dir=data_dir, port=site.config.ports.postgres
    )


def _is_postgres_ready(site: Site) -> bool:
    return probes.is_postgres_ready(
        site.config.ports.postgres,
        database=postgres.DATABASE,
        user=postgres.OWNER,
        password=site.secrets.database_owner,
    )


# --- Redis ---


def _prepare_redis(site: Site) -> None:
    folder = site.config.state_dir / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        f'include "{site.config.root / "infra" / "redis" / "redis.conf"}"',
        f"port {site.config.ports.redis}",
        f'dir "{folder}"',
        f"requirepass {site.secrets.redis}",
        f"user limiter on >{site.secrets.redis_limiter} {LIMITER_RIGHTS}",
        f"user exporter on >{site.secrets.redis_exporter} {EXPORTER_RIGHTS}",
    ]
    write_private(folder / "redis.conf", "\n".join(lines) + "\n")


# --- Kafka and Connect ---


def _prepare_kafka(site: Site) -> None:
    java.prepare_broker(
        site.java,
        root=site.config.root,
        jars=site.config.artifacts_dir / "kafka",
        folder=site.config.state_dir / "kafka",
        ports=site.config.ports,
    )


def _kafka_command(site: Site) -> list[str]:
    settings = site.config.state_dir / "kafka" / "server.properties"
    return java.java_command(
        site.java,
        root=site.config.root,
        jars=site.config.artifacts_dir / "kafka",
        arguments=["kafka.Kafka", str(settings)],
    )


def _worker_file(site: Site) -> Path:
    return site.config.state_dir / "connect" / "connect-distributed.properties"


def _prepare_connect(site: Site) -> None:
    folder = site.config.state_dir / "connect"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = (site.config.root / "infra" / "connect" / "connect-distributed.properties").read_text("utf-8")
    files = folder / "files"
    files.mkdir(mode=0o700, exist_ok=True)
    local = (
        f"plugin.path={site.config.artifacts_dir / 'debezium-plugin'}\n"
        f"config.providers.file.param.allowed.paths={files}\n"
    )
    write_private(_worker_file(site), shared + local)


def _connect_command(site: Site) -> list[str]:
    settings = _worker_file(site)
    return java.java_command(
        site.java,
        root=site.config.root,
        jars=site.config.artifacts_dir / "connect",
        options=[
            java.metrics_agent(
                artifacts_dir=site.config.artifacts_dir,
                port=site.config.ports.connect_jmx,
                rules=site.config.root / "infra" / "connect" / "jmx.yml",
            )
        ],
        arguments=["org.apache.kafka.connect.cli.ConnectDistributed", str(settings)],
    )


def _connect_environment(site: Site) -> dict[str, str]:
    return {
        **mark(site),
        "CHAT4ALL_KAFKA_BOOTSTRAP": f"{HOST}:{site.config.ports.kafka}",
        "CHAT4ALL_CONNECT_REST_HOST": HOST,
        "CHAT4ALL_CONNECT_REST_PORT": str(site.config.ports.connect),
        "CHAT4ALL_CDC_DATABASE_HOST": HOST,
        "CHAT4ALL_CDC_DATABASE_PORT": str(site.config.ports.postgres),
        "CHAT4ALL_CDC_DATABASE_NAME": postgres.DATABASE,
        "CHAT4ALL_CDC_DATABASE_USER": "chat_cdc",
        "CHAT4ALL_CDC_DATABASE_PASSWORD": site.secrets.database_cdc,
    }


# --- Our programs and steps ---


def _signing_key_file(site: Site) -> str:
    return str(site.config.secrets_dir / "signing_keys.json")


def _jwks_file(site: Site) -> str:
    return str(site.config.state_dir / "jwks.json")


def _ingest_api_environment(site: Site) -> dict[str, str]:
    return {
        **_shared(site),
        **_traced(site),
        "CHAT4ALL_TRACE_RATIO": site.config.environ.get("CHAT4ALL_TRACE_RATIO", "0.01"),
        **_database(site, "chat_api", site.secrets.database_api),
        **_redis(site),
        "CHAT4ALL_REDIS_USERNAME": "limiter",
        "CHAT4ALL_REDIS_PASSWORD": site.secrets.redis_limiter,
        "CHAT4ALL_SIGNING_KEY_FILE": _signing_key_file(site),
        "CHAT4ALL_AUDIT_HEAD_FILE": str(site.config.state_dir / "audit" / "heads.jws"),
        "CHAT4ALL_TRUSTED_PROXIES": HOST,
        **{name: site.config.environ.get(name, value) for name, value in GENEROUS_LIMITS.items()},
    }


def _part_addresses(ports: Ports) -> str:
    """What the console shows beside delivery, Redis and PostgreSQL; in the order of a message's path."""
    paths = {
        "ingest-api": (ports.ingest_api, "/readyz"),
        "connector": (ports.connect, "/connectors/chat4all-outbox/status"),
        "supervise": (ports.supervise_metrics, "/metrics"),
        "timeline": (ports.timeline_metrics, "/healthz"),
        "router": (ports.router_metrics, "/healthz"),
        "channels": (ports.channels_metrics, "/healthz"),
        "audit": (ports.audit_metrics, "/healthz"),
    }
    return ",".join(f"{name}=http://{HOST}:{port}{path}" for name, (port, path) in paths.items())


def _delivery_environment(site: Site) -> dict[str, str]:
    return {
        **_reader(site),
        **_traced(site),
        "CHAT4ALL_JWKS_FILE": _jwks_file(site),
        "CHAT4ALL_CURSOR_SECRET": site.secrets.cursor_secret,
        "CHAT4ALL_PARTS": _part_addresses(site.config.ports),
    }


def _timeline_environment(site: Site) -> dict[str, str]:
    return {
        **_reader(site),
        **_traced(site),
        **_metrics(site.config.ports.timeline_metrics),
        "CHAT4ALL_GROUP_INSTANCE_ID": "timeline-1",
    }


def _router_environment(site: Site) -> dict[str, str]:
    return {
        **_shared(site),
        **_traced(site),
        **_database(site, "chat_reader", site.secrets.database_reader),
        **_metrics(site.config.ports.router_metrics),
        "CHAT4ALL_GROUP_INSTANCE_ID": "router-1",
    }


def _channels_environment(site: Site) -> dict[str, str]:
    return {
        **_reader(site),
        **_traced(site),
        **_database(site, "chat_channels", site.secrets.database_channels),
        **_metrics(site.config.ports.channels_metrics),
        "CHAT4ALL_GROUP_INSTANCE_ID": "channels-1",
    }


def _faust_worker(app: str) -> Callable[[Site], list[str]]:
    def command(site: Site) -> list[str]:
        options = ["-L", "uvloop", "-A", f"stream_apps.{app}", "-D", str(site.config.state_dir / app)]
        return _python("faust", *options, "worker", "-l", "info", "--without-web")

    return command


def _audit_environment(site: Site) -> dict[str, str]:
    return {**_reader(site), **_metrics(site.config.ports.audit_metrics)}


def _gateway_command(site: Site) -> list[str]:
    caddy = Path(sys.executable).parent / "caddy"
    return [str(caddy), "run", "--config", str(site.config.root / "infra" / "caddy" / "local.caddyfile")]


def _gateway_environment(site: Site) -> dict[str, str]:
    ports = site.config.ports
    folder = str(site.config.state_dir / "gateway")
    return {
        **mark(site),
        "CHAT4ALL_GATEWAY_HOST": HOST,
        "CHAT4ALL_GATEWAY_PORT": str(ports.gateway),
        "CHAT4ALL_INGEST_API_UPSTREAM": f"{HOST}:{ports.ingest_api}",
        "CHAT4ALL_DELIVERY_UPSTREAM": f"{HOST}:{ports.delivery}",
        "XDG_DATA_HOME": folder,
        "XDG_CONFIG_HOME": folder,
    }


def _canary_environment(site: Site) -> dict[str, str]:
    ports = site.config.ports
    return {
        **mark(site),
        "PYTHONUNBUFFERED": "1",
        "CHAT4ALL_CANARY_WRITES_URL": f"http://{HOST}:{ports.ingest_api}",
        "CHAT4ALL_CANARY_READS_URL": f"http://{HOST}:{ports.delivery}",
        "CHAT4ALL_CANARY_PASSWORD": site.secrets.canary_password,
        **_metrics(ports.canary_metrics),
    }


def _migrations_environment(site: Site) -> dict[str, str]:
    return {
        **_shared(site),
        **_database(site, postgres.OWNER, site.secrets.database_owner),
        "CHAT4ALL_API_PASSWORD": site.secrets.database_api,
        "CHAT4ALL_CDC_PASSWORD": site.secrets.database_cdc,
        "CHAT4ALL_READER_PASSWORD": site.secrets.database_reader,
        "CHAT4ALL_MONITOR_PASSWORD": site.secrets.database_monitor,
        "CHAT4ALL_RECOVERY_PASSWORD": site.secrets.database_recovery,
        "CHAT4ALL_CHANNELS_PASSWORD": site.secrets.database_channels,
    }


def _connector_environment(site: Site) -> dict[str, str]:
    return {**_shared(site), "CHAT4ALL_CONNECT_URL": f"http://{HOST}:{site.config.ports.connect}"}


def _supervise_environment(site: Site) -> dict[str, str]:
    return {
        **_connector_environment(site),
        **_database(site, "chat_monitor", site.secrets.database_monitor),
        **_metrics(site.config.ports.supervise_metrics),
    }


def _recover_environment(site: Site) -> dict[str, str]:
    return {**_connector_environment(site), **_database(site, "chat_recovery", site.secrets.database_recovery)}


def _doctor_environment(site: Site) -> dict[str, str]:
    return {
        **_connector_environment(site),
        **_database(site, "chat_monitor", site.secrets.database_monitor),
        "CHAT4ALL_CONNECT_WORKER_FILE": str(_worker_file(site)),
    }


def _outboxes_environment(site: Site) -> dict[str, str]:
    return {**_connector_environment(site), **_database(site, postgres.OWNER, site.secrets.database_owner)}


TOOLS: Mapping[str, Callable[[Site], dict[str, str]]] = {
    "doctor": _doctor_environment,
    "outboxes": _outboxes_environment,
    "recover": _recover_environment,
}
"""What an operator runs by hand with `exec`, and what each is told."""

PROGRAMS = (
    Program(
        name="postgres",
        port="postgres",
        prepare=_prepare_postgres,
        command=_postgres_command,
        environment=mark,
        is_ready=_is_postgres_ready,
        stop_signal="INT",  # a fast shutdown: clients are disconnected (postgres(1))
        stop_seconds=30,
        stops_as_group=False,  # its own processes end by its own order
    ),
    Program(
        name="redis",
        port="redis",
        prepare=_prepare_redis,
        command=lambda site: ["redis-server", str(site.config.state_dir / "redis" / "redis.conf")],
        environment=mark,
        is_ready=lambda site: probes.is_redis_ready(site.config.ports.redis, password=site.secrets.redis),
    ),
    Program(
        name="kafka",
        port="kafka",
        more_ports=("kafka_controller",),
        prepare=_prepare_kafka,
        command=_kafka_command,
        environment=mark,
        is_ready=lambda site: probes.is_kafka_ready(site.config.ports.kafka),
        stop_seconds=30,
    ),
    Program(
        name="connect",
        port="connect",
        more_ports=("connect_jmx",),
        needs=("kafka",),
        prepare=_prepare_connect,
        command=_connect_command,
        environment=_connect_environment,
        is_ready=lambda site: probes.is_connect_ready(site.config.ports.connect),
        start_seconds=90,
        stop_seconds=20,
    ),
    Program(
        name="ingest-api",
        port="ingest_api",
        needs=("migrations", "signing-keys"),
        command=lambda site: _python("ingest_api", "--host", HOST, "--port", str(site.config.ports.ingest_api)),
        environment=_ingest_api_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.ingest_api, "/readyz"),
    ),
    Program(
        name="timeline",
        port="timeline_metrics",
        needs=("migrations", "topics", "redis"),
        command=_faust_worker("timeline"),
        environment=_timeline_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.timeline_metrics, "/healthz"),
    ),
    Program(
        name="router",
        port="router_metrics",
        needs=("migrations", "topics"),
        command=_faust_worker("router"),
        environment=_router_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.router_metrics, "/healthz"),
    ),
    Program(
        name="channels",
        port="channels_metrics",
        needs=("migrations", "topics", "redis"),
        command=_faust_worker("channels"),
        environment=_channels_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.channels_metrics, "/healthz"),
    ),
    Program(
        name="delivery",
        port="delivery",
        needs=("migrations", "signing-keys", "redis"),
        command=lambda site: _python("stream_apps.delivery", "--host", HOST, "--port", str(site.config.ports.delivery)),
        environment=_delivery_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.delivery, "/readyz"),
    ),
    # It needs nothing to start, and stops beside delivery: what delivery says while it stops still passes through it.
    Program(
        name="gateway",
        port="gateway",
        command=_gateway_command,
        environment=_gateway_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.gateway, "/.well-known/jwks.json"),
        start_seconds=180,  # it answers when the API does
    ),
    Program(
        name="supervise",
        port="supervise_metrics",
        needs=("connect", "migrations"),
        command=lambda _: _python("connectors", "supervise", "connectors/configs"),
        environment=_supervise_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.supervise_metrics, "/metrics"),
    ),
    Program(
        name="audit",
        port="audit_metrics",
        needs=("migrations", "topics", "redis"),
        command=lambda _: _python("stream_apps.audit", "run"),
        environment=_audit_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.audit_metrics, "/healthz"),
    ),
    Program(
        name="canary",
        port="canary_metrics",  # it needs what any client needs, and waits for that by itself
        command=lambda _: _python("stream_apps.canary", "run"),
        environment=_canary_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.canary_metrics, "/healthz"),
    ),
    *WATCHERS,
)

STEPS = (
    Step(
        name="migrations",
        needs=("postgres",),
        command=lambda _: _python("ingest_api.migrate"),
        environment=_migrations_environment,
        inputs=("ingest_api/migrations", "ingest_api/migrate.py"),
    ),
    Step(
        name="signing-keys",
        command=lambda site: _python(
            "ingest_api.signing_keys", "--private", _signing_key_file(site), "--public", _jwks_file(site)
        ),
        environment=_shared,
        inputs=("ingest_api/signing_keys.py", "schemas/key_files.py"),
    ),
    Step(
        name="topics",
        needs=("kafka",),
        command=lambda _: _python("stream_apps.topics"),
        environment=_shared,
        inputs=("schemas/topics.py", "stream_apps/topics.py"),
    ),
    Step(
        name="connector",
        needs=("connect", "migrations", "topics"),
        command=lambda _: _python("connectors", "apply", "connectors/configs"),
        environment=_connector_environment,
        inputs=("connectors/configs",),
    ),
)


def inherited_environment(config: StackConfig) -> Mapping[str, str]:
    """What every process of the stack starts from."""
    return {"PATH": os.defpath, **config.environ, STACK_MARK: str(config.state_dir)}
