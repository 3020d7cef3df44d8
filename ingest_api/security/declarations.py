"""Deny by default: every route declares the scope it needs, or is on the list of those that are public."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from ingest_api.security.principals import RequireScope

PublicRoutes = Collection[tuple[str, str]]
"""Methods and paths."""


class UndeclaredRoute(Exception):
    """A route neither asks for a scope nor is public, or the list of public ones names one that is not there."""


def check_declarations(routers: Collection[APIRouter], public: PublicRoutes) -> None:
    """Raises UndeclaredRoute. For where the program is wired: what is not declared is never served."""
    unseen = set(public)
    for route in _routes(routers):
        if not isinstance(route, APIRoute):
            raise UndeclaredRoute(f"{route!r} is of a kind that cannot ask for a scope.")
        for method in route.methods or ():
            operation = (method, route.path)
            if operation in unseen:
                unseen.discard(operation)
                if find_requirement(route.dependant) is not None:
                    raise UndeclaredRoute(f"{method} {route.path} is on the public list but asks for a scope.")
            elif find_requirement(route.dependant) is None:
                raise UndeclaredRoute(f"{method} {route.path} neither asks for a scope nor is on the public list.")
    if unseen:
        raise UndeclaredRoute(f"The public list names routes that are not there: {sorted(unseen)}.")


def find_requirement(dependant: Dependant) -> RequireScope | None:
    """The scope that an endpoint asks for, directly or through what it depends on."""
    if isinstance(dependant.call, RequireScope):
        return dependant.call
    return next((found for inner in dependant.dependencies if (found := find_requirement(inner))), None)


def _routes(routers: Collection[APIRouter]) -> Iterator[BaseRoute]:
    for router in routers:
        yield from router.routes
