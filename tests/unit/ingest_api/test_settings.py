"""Settings: the page that lists them is the one that they make; quotas as operators write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_api.limits.quotas import Quota, parse_quota
from ingest_api.settings import MigrationSettings, Settings, reference

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_the_generated_one() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference(Settings, MigrationSettings)


def test_a_quota_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHAT4ALL_LIMIT_USER_SENDS", "5/10s")
    monkeypatch.setenv("CHAT4ALL_TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8")
    settings = Settings(signing_key_file=tmp_path)
    assert settings.limit_user_sends == Quota(5, 10)
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "fd00::/8"]


def test_a_quota_reads_as_it_is_written() -> None:
    assert [str(parse_quota(text)) for text in ("600/60s", "0")] == ["600/60s", "0"]


@pytest.mark.parametrize("text", ["", "600", "600/60", "0/60s", "600/0s", "-1/1s", "1.5/1s", "600/60s ", "many"])
def test_a_malformed_quota_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="600/60s"):
        parse_quota(text)
