"""A key file that changes while we run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, KeySet

from schemas.key_files import LOOK_AGAIN_SECONDS, KeyFile

OLD, NEW = (ECKey.generate_key("P-256", auto_kid=True) for _ in range(2))


def write(path: Path, *keys: ECKey) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(KeySet(list(keys)).as_dict(private=False)))
    temporary.replace(path)


def test_an_unknown_key_makes_the_file_be_read_again_but_not_all_the_time(tmp_path: Path) -> None:
    now = 0.0
    write(path := tmp_path / "keys.json", OLD)
    file = KeyFile(path, clock=lambda: now)
    write(path, OLD, NEW)
    assert file.find_key(str(NEW.kid)) is None
    now += LOOK_AGAIN_SECONDS
    assert file.find_key(str(NEW.kid)) is not None
    assert file.find_key(str(OLD.kid)) is not None
    assert (file.generation, file.newest.kid) == (1, NEW.kid)


def test_a_file_that_did_not_change_keeps_its_generation(tmp_path: Path) -> None:
    write(path := tmp_path / "keys.json", OLD)
    file = KeyFile(path)
    file.refresh()
    assert file.generation == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"keys": []}', '{"keys": 1}'])
def test_a_file_that_became_unreadable_leaves_the_keys_as_they_were(tmp_path: Path, content: str) -> None:
    write(path := tmp_path / "keys.json", OLD)
    file = KeyFile(path)
    path.write_text(content)
    file.refresh()
    assert file.newest.kid == OLD.kid
    with pytest.raises(ValueError, match=r"JWK set|Expecting"):
        KeyFile(path)
    path.unlink()
    file.refresh()
    assert file.find_key(str(OLD.kid)) is not None
