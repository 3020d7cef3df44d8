"""Problem documents: how every HTTP error of the system reads (RFC 9457)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:chat4all:problem:"


class Problem(BaseModel):
    """One problem document. Members beyond these four are the problem's data, named where it is raised."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What kind of problem this is: a stable identifier.")
    title: str = Field(description="The kind in words; the same for every occurrence.")
    status: int = Field(ge=400, le=599, description="The HTTP status, repeated.")
    detail: str = Field(description="What happened this time, and what to do.")


class ProblemError(Exception):
    """An error that its HTTP caller is told about. Subclasses set `code`, `title` and `status`; the first line of
    a subclass' docstring is the sentence that OpenAPI shows."""

    code: str = "internal-error"
    title: str = "Internal error"
    status: int = 500

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **data: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.data = data

    def document(self) -> dict[str, Any]:
        """The problem document, ready for JSON."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.data,
        }
