"""The programs that only watch: exporters, the prober, Prometheus and Alertmanager, all of them Debian packages."""

from __future__ import annotations

from infra.local import postgres, probes, watching
from infra.local.ports import HOST
from infra.local.program import Program, Site, mark

NODE_COLLECTORS = (
    "cpu",
    "diskstats",
    "filefd",
    "filesystem",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "time",
    "timex",
    "vmstat",
)


def _watcher_environment(site: Site) -> dict[str, str]:
    return {**mark(site), "GOMAXPROCS": "1"}  # it shares two cores with what it watches


def _prepare_prometheus(site: Site) -> None:
    config = site.config
    folder = config.state_dir / "prometheus"
    watching.prepare_prometheus(config.root, folder, config.ports, config.environ)


def _prometheus_command(site: Site) -> list[str]:
    folder = site.config.state_dir / "prometheus"
    return [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=15d",
        "--storage.tsdb.retention.size=1GB",
        f"--web.listen-address={HOST}:{site.config.ports.prometheus}",
        "--log.level=warn",
    ]


def _prepare_alertmanager(site: Site) -> None:
    config = site.config
    watching.prepare_alertmanager(config.root, config.state_dir / "alertmanager", config.environ)


def _alertmanager_command(site: Site) -> list[str]:
    folder = site.config.state_dir / "alertmanager"
    return [
        "prometheus-alertmanager",
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{site.config.ports.alertmanager}",
        "--cluster.listen-address=",  # there is one
        "--log.level=warn",
    ]


def _blackbox_command(site: Site) -> list[str]:
    return [
        "prometheus-blackbox-exporter",
        f"--config.file={site.config.root / 'infra' / 'blackbox' / 'blackbox.yml'}",
        f"--web.listen-address={HOST}:{site.config.ports.blackbox_exporter}",
        "--log.level=warn",
    ]


def _postgres_exporter_environment(site: Site) -> dict[str, str]:
    return {
        **_watcher_environment(site),
        "DATA_SOURCE_URI": f"{HOST}:{site.config.ports.postgres}/{postgres.DATABASE}?sslmode=disable",
        "DATA_SOURCE_USER": "chat_monitor",
        "DATA_SOURCE_PASS": site.secrets.database_monitor,
    }


def _postgres_exporter_command(site: Site) -> list[str]:
    return [
        "prometheus-postgres-exporter",
        f"--web.listen-address={HOST}:{site.config.ports.postgres_exporter}",
        "--no-collector.bgwriter",  # it asks for columns that PostgreSQL 17 has moved
        "--log.level=warn",
    ]


def _redis_exporter_environment(site: Site) -> dict[str, str]:
    return {
        **_watcher_environment(site),
        "REDIS_ADDR": f"redis://{HOST}:{site.config.ports.redis}",
        "REDIS_USER": "exporter",
        "REDIS_PASSWORD": site.secrets.redis_exporter,
    }


def _redis_exporter_command(site: Site) -> list[str]:
    return [
        "prometheus-redis-exporter",
        f"-web.listen-address={HOST}:{site.config.ports.redis_exporter}",
        "-set-client-name=false",
        "-config-command=-",  # CONFIG would tell it passwords
    ]


def _node_exporter_command(site: Site) -> list[str]:
    return [
        "prometheus-node-exporter",
        f"--web.listen-address={HOST}:{site.config.ports.node_exporter}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in NODE_COLLECTORS),
        "--log.level=error",
    ]


WATCHERS = (
    Program(
        name="postgres-exporter",
        port="postgres_exporter",
        needs=("migrations",),
        package="prometheus-postgres-exporter",
        only_watches=True,
        command=_postgres_exporter_command,
        environment=_postgres_exporter_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.postgres_exporter, "/metrics"),
    ),
    Program(
        name="redis-exporter",
        port="redis_exporter",
        needs=("redis",),
        package="prometheus-redis-exporter",
        only_watches=True,
        command=_redis_exporter_command,
        environment=_redis_exporter_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.redis_exporter, "/health"),
    ),
    Program(
        name="node-exporter",
        port="node_exporter",
        package="prometheus-node-exporter",
        only_watches=True,
        command=_node_exporter_command,
        environment=_watcher_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.node_exporter, "/"),
    ),
    Program(
        name="blackbox",
        port="blackbox_exporter",
        package="prometheus-blackbox-exporter",
        only_watches=True,
        command=_blackbox_command,
        environment=_watcher_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.blackbox_exporter, "/-/healthy"),
    ),
    Program(
        name="alertmanager",
        port="alertmanager",
        package="prometheus-alertmanager",
        only_watches=True,
        prepare=_prepare_alertmanager,
        command=_alertmanager_command,
        environment=_watcher_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.alertmanager, "/-/ready"),
    ),
    Program(
        name="prometheus",
        port="prometheus",
        package="prometheus",
        only_watches=True,
        prepare=_prepare_prometheus,
        command=_prometheus_command,
        environment=_watcher_environment,
        is_ready=lambda site: probes.is_http_ready(site.config.ports.prometheus, "/-/ready"),
    ),
)
