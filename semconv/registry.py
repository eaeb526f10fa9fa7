"""Reads the registry: ``model/*.yaml``, in the format of OpenTelemetry's weaver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

MODEL = Path(__file__).with_name("model")

_SIMPLE_TYPES = {str: "string", int: "int"}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of our own, or one of OpenTelemetry's that we use.

    Attributes:
        name: Its name; that of a template is what its names begin with.
        group: The heading it stands under.
        type: Its type as the conventions write it: ``string``, ``int``, ``template[string[]]`` …
        stability: Whether its name and meaning may still change.
        brief: What it says.
        note: What else is to be known of it.
        examples: Values it may have.
        members: What each of its values means, if it has a set of them.
    """

    name: str
    group: str
    type: str
    stability: str
    brief: str
    note: str
    examples: tuple[Any, ...]
    members: Mapping[str, str]

    @property
    def is_template(self) -> bool:
        """Whether it stands for many attributes that begin alike."""
        return self.type.startswith("template[")

    def covers(self, name: str) -> bool:
        """Whether an exported attribute is this one.

        Args:
            name: The name that was exported.
        """
        return name.startswith(f"{self.name}.") if self.is_template else name == self.name


@dataclass(frozen=True, slots=True)
class Use:
    """An attribute on a signal.

    Attributes:
        name: The attribute's name.
        level: ``required``, ``conditionally_required``, ``recommended`` or ``opt_in``.
        condition: When it is there; empty for always.
        at_start: Whether samplers see it.
        brief: What it says here.
        note: What else is to be known of it here alone.
    """

    name: str
    level: str
    condition: str
    at_start: bool
    brief: str
    note: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of span, an event or a metric.

    Attributes:
        kind: ``span``, ``event`` or ``metric``.
        name: Its name; a kind of span has one of our own.
        stability: Whether it may still change.
        brief: What it says.
        note: What else is to be known of it.
        uses: Its attributes.
        span_kind: The kind of a span.
        events: The names of the events that a span may have.
        instrument: What kind of metric it is.
        unit: The unit of a metric.
    """

    kind: str
    name: str
    stability: str
    brief: str
    note: str
    uses: tuple[Use, ...]
    span_kind: str = ""
    events: tuple[str, ...] = ()
    instrument: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that is exported.

    Attributes:
        attributes: The attributes, by name.
        signals: Spans, events and metrics, in this order.
    """

    attributes: Mapping[str, Attribute]
    signals: tuple[Signal, ...]

    @classmethod
    def read(cls) -> Registry:
        """Read it from its files.

        Raises:
            ValueError: A signal has an attribute that is not in ``registry.yaml``, or one there is said to be
                OpenTelemetry's and is not.
        """
        attributes: dict[str, Attribute] = {}
        for group in groups_of("attribute_group"):
            for row in group["attributes"]:
                attribute = _own(row, group) if "id" in row else _opentelemetrys(row, group)
                attributes[attribute.name] = attribute
        signals = (_signal(group, attributes) for kind in ("span", "event", "metric") for group in groups_of(kind))
        return cls(attributes, tuple(signals))

    def of_kind(self, kind: str) -> dict[str, Signal]:
        """The signals of one kind, by name.

        Args:
            kind: ``span``, ``event`` or ``metric``.
        """
        return {signal.name: signal for signal in self.signals if signal.kind == kind}


def groups_of(kind: str) -> Iterable[dict[str, Any]]:
    """The groups of one type, as they are written.

    Args:
        kind: ``attribute_group``, ``span``, ``event`` or ``metric``.
    """
    for path in sorted(MODEL.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text("utf-8")).get("groups", ()):
            if group["type"] == kind:
                yield group


def _own(row: Mapping[str, Any], group: Mapping[str, Any]) -> Attribute:
    enumerated = isinstance(row["type"], dict)
    return Attribute(
        name=row["id"],
        group=group["display_name"],
        type="string" if enumerated else row["type"],
        stability=row["stability"],
        brief=row["brief"],
        note=row.get("note", ""),
        examples=tuple(row.get("examples", ())),
        members={member["value"]: member["brief"] for member in row["type"]["members"]} if enumerated else {},
    )


def _opentelemetrys(row: Mapping[str, Any], group: Mapping[str, Any]) -> Attribute:
    name = row["ref"]
    stability, is_template = _in_conventions(name)
    kind = _type_of(row["examples"][0])
    return Attribute(
        name=name,
        group=group["display_name"],
        type=f"template[{kind}]" if is_template else kind,
        stability=stability,
        brief=row["brief"],
        note=row.get("note", ""),
        examples=tuple(row["examples"]),
        members={},
    )


def _type_of(example: Any) -> str:
    match example:
        case [first, *_]:
            return f"{_type_of(first)}[]"
        case _:
            return _SIMPLE_TYPES[type(example)]


def _in_conventions(name: str) -> tuple[str, bool]:
    """How stable OpenTelemetry holds an attribute, and whether it is a template."""
    constant = name.upper().replace(".", "_")
    for package, stability in (("semconv", "stable"), ("semconv._incubating", "development")):
        module = import_module(f"opentelemetry.{package}.attributes.{name.partition('.')[0]}_attributes")
        for suffix in ("", "_TEMPLATE"):
            if getattr(module, constant + suffix, None) == name:
                return stability, bool(suffix)
    raise ValueError(f"registry.yaml refers to {name}, which OpenTelemetry does not define")


def _signal(group: Mapping[str, Any], attributes: Mapping[str, Attribute]) -> Signal:
    match group["type"]:
        case "span":
            name = group["id"].removeprefix("span.insider.")
        case "event":
            name = group["name"]
        case _:
            name = group["metric_name"]
    unknown = {row["ref"] for row in group["attributes"]} - attributes.keys()
    if unknown:
        raise ValueError(f"{group['id']} has attributes that registry.yaml does not have: {', '.join(sorted(unknown))}")
    return Signal(
        kind=group["type"],
        name=name,
        stability=group["stability"],
        brief=group["brief"],
        note=group.get("note", ""),
        uses=tuple(_use(row, attributes[row["ref"]]) for row in group["attributes"]),
        span_kind=group.get("span_kind", ""),
        events=tuple(event.removeprefix("event.") for event in group.get("events", ())),
        instrument=group.get("instrument", ""),
        unit=group.get("unit", ""),
    )


def _use(row: Mapping[str, Any], attribute: Attribute) -> Use:
    match row["requirement_level"]:
        case str(level):
            condition = ""
        case conditional:
            ((level, condition),) = conditional.items()
    return Use(
        name=row["ref"],
        level=level,
        condition=condition,
        at_start=row.get("sampling_relevant", False),
        brief=row.get("brief", attribute.brief),
        note=row.get("note", ""),
    )
