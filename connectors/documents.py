"""JSON and YAML files as documents whose scalars are the text that stands in the file, which is how Kafka Connect
stores every setting: `1e3`, `010` and `on` stay what they are. Knows nothing of connectors."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".json", ".yaml", ".yml")


class UnusableFile(Exception):
    """A file cannot be read or does not say what it should; the message is a sentence that names it."""


def read_document(path: Path) -> Any:
    """The file's content: dicts, lists, texts, and None for null. Raises UnusableFile."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{path} is not text in UTF-8.") from error
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        return _from_json(text) if kind == "JSON" else yaml.load(text, Loader=_TextLoader)  # noqa: S506 - makes texts only
    except json.JSONDecodeError as error:
        raise UnusableFile(f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except _RepeatedKey as error:
        raise UnusableFile(f'{path} says "{error}" twice; one of them would be lost.') from error
    except yaml.MarkedYAMLError as error:
        raise UnusableFile(f"{path} is not YAML: {_sentence(error)}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UnusableFile(f"{path} is not {kind}.") from error


class _RepeatedKey(ValueError):
    """A key of an object occurs twice."""


def _from_json(text: str) -> Any:
    document = json.loads(
        text, object_pairs_hook=_without_repeats, parse_int=str, parse_float=str, parse_constant=_no_constant
    )
    return _with_texts(document)


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not a JSON number", name, 0)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKey(key)
        found[key] = value
    return found


def _with_texts(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return {key: _with_texts(each) for key, each in value.items()}
        case list():
            return [_with_texts(each) for each in value]
        case _:
            return value


class _TextLoader(yaml.BaseLoader):
    """Every scalar is a text, except a null that is written without quotes."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """The text, or None."""
        is_null = node.style is None and node.value in ("", "~", "null")
        return None if is_null else super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping. Raises _RepeatedKey."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
            if key in seen:
                raise _RepeatedKey(key)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"{error.problem} at line {mark.line + 1}, column {mark.column + 1}" if mark else str(error.problem)
