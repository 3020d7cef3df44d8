"""`python -m schemas.json_schemas`: writes the JSON Schema of every event type to schemas/json."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from schemas.delivery_events import DELIVERY_EVENT_TYPES, REQUEST_EVENT_TYPES
from schemas.ephemeral import EPHEMERAL_EVENT_TYPES
from schemas.events import EVENT_TYPES, RECEIPT_EVENT_TYPES
from schemas.user_events import USER_EVENT_TYPES

FOLDER = Path(__file__).parent / "json"

ALL_TYPES: dict[str, type[BaseModel]] = {
    **EVENT_TYPES,
    **RECEIPT_EVENT_TYPES,
    **USER_EVENT_TYPES,
    **REQUEST_EVENT_TYPES,
    **DELIVERY_EVENT_TYPES,
    **EPHEMERAL_EVENT_TYPES,
}
"""Every type of event that is published."""


def json_schema_texts() -> dict[str, str]:
    """File name -> text, for every event type (JSON Schema 2020-12, as pydantic generates it)."""
    return {
        f"{name}.json": json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$id": f"urn:chat4all:event:{name}",
                **model.model_json_schema(mode="validation"),
            },
            indent=2,
        )
        + "\n"
        for name, model in ALL_TYPES.items()
    }


def main() -> None:
    """The command."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in json_schema_texts().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
