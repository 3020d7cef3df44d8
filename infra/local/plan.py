"""Which programs and steps a start takes, and in which order they stop. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from infra.local.errors import StackError

Needs = Mapping[str, Collection[str]]
"""Name of a program or step -> names of what it needs."""


def choose(programs: Needs, steps: Needs, only: Collection[str] | None) -> set[str]:
    """The names a start takes: everything, or the programs of `only` with all that they need, and those steps that no
    program needs once everything is there that they need. Raises StackError for an unknown program."""
    if only is None:
        return {*programs, *steps}
    unknown = sorted(set(only) - set(programs))
    if unknown:
        raise StackError(f"There is no program {', '.join(unknown)}; there are {', '.join(programs)}.")
    everything = {**programs, **steps}
    chosen: set[str] = set()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += everything[name]
    needed = {need for needs in everything.values() for need in needs}
    return chosen | {name for name, needs in steps.items() if name not in needed and chosen.issuperset(needs)}


def stop_waves(programs: Needs, steps: Needs) -> list[list[str]]:
    """The programs in groups that may stop together: each before whatever it needs."""
    needed = {name: _programs_below(name, {**programs, **steps}) & set(programs) for name in programs}
    waves: list[list[str]] = []
    left = list(programs)
    while left:
        wave = [name for name in left if not any(name in needed[other] for other in left)]
        waves.append(wave)
        left = [name for name in left if name not in wave]
    return waves


def _programs_below(name: str, everything: Needs) -> set[str]:
    found: set[str] = set()
    waiting = list(everything[name])
    while waiting:
        need = waiting.pop()
        if need not in found:
            found.add(need)
            waiting += everything[need]
    return found
