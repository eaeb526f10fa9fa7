"""What ``insider-otel doctor`` looks at, read once: variables, installed distributions, entry points."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import distributions


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor has to say.

    Attributes:
        level: How much it matters.
        what: What was found; never a secret.
        why: Why it matters; empty if all is well.
        remedy: What to do about it; empty if nothing is to be done.
    """

    level: Level
    what: str
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a process that starts here would find.

    Attributes:
        variables: Environment variables.
        versions: Versions of the installed distributions, by name in lower case with ``-`` for ``_`` and ``.``.
        entry_points: Names of the installed entry points, by group.
    """

    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    entry_points: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        versions: dict[str, str] = {}
        names: dict[str, set[str]] = {}
        for distribution in distributions():
            if not distribution.metadata:
                # What an interrupted installation leaves behind: no metadata, or empty ones.
                continue
            # The first one found is the one that is imported.
            versions.setdefault(normalized(distribution.name), distribution.version)
            for entry_point in distribution.entry_points:
                names.setdefault(entry_point.group, set()).add(entry_point.name)
        return cls(dict(os.environ), versions, {group: frozenset(found) for group, found in names.items()})

    def variable(self, name: str) -> str:
        """A variable's value without white space around it; empty if it is not set."""
        return self.variables.get(name, "").strip()

    def words(self, name: str) -> list[str]:
        """The words of a variable that holds a list with commas."""
        return [word.strip() for word in self.variable(name).split(",") if word.strip()]

    def is_true(self, name: str) -> bool:
        """Whether a variable is set to ``true``, as OpenTelemetry reads it."""
        return self.variable(name).lower() == "true"


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
