"""The registry is written as OpenTelemetry's weaver reads it (its ``semconv-syntax.md``)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from insider_otel import __version__
from semconv.registry import MODEL, groups_of

GROUP = {"id", "type", "brief", "attributes"}
SIGNAL = GROUP | {"stability"}
NEEDED = {
    "attribute_group": GROUP | {"display_name"},
    "span": SIGNAL | {"span_kind"},
    "event": SIGNAL | {"name"},
    "metric": SIGNAL | {"metric_name", "instrument", "unit"},
}
ALLOWED = {**NEEDED, "span": NEEDED["span"] | {"note", "events"}}
GROUPS = [group for kind in NEEDED for group in groups_of(kind)]
ATTRIBUTES = [row for group in GROUPS for row in group["attributes"]]
DEFINITIONS = [row for row in ATTRIBUTES if "id" in row]
TYPES: dict[str, type] = {"string": str, "int": int}
STABILITIES = {"stable", "development", "alpha", "beta", "release_candidate"}


def by_id(row: dict[str, Any]) -> str:
    return str(row.get("id"))


@pytest.mark.parametrize("group", GROUPS, ids=by_id)
def test_a_group_has_the_fields_of_its_type(group: dict[str, Any]) -> None:
    assert NEEDED[group["type"]] <= group.keys() <= ALLOWED[group["type"]]
    assert group.get("stability", "stable") in STABILITIES


def test_every_file_has_only_groups_and_no_group_is_left_out() -> None:
    files = [yaml.safe_load(path.read_text("utf-8")) for path in MODEL.glob("*.yaml") if path.stem != "manifest"]
    assert {key for file in files for key in file} == {"groups"}
    assert sum(len(file["groups"]) for file in files) == len(GROUPS)


def test_no_two_groups_and_no_two_attributes_have_one_id() -> None:
    for rows in (GROUPS, DEFINITIONS):
        ids = [row["id"] for row in rows]
        assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("row", DEFINITIONS, ids=by_id)
def test_an_attribute_is_defined_in_full(row: dict[str, Any]) -> None:
    assert (
        {"id", "type", "stability", "brief"} <= row.keys() <= {"id", "type", "stability", "brief", "note", "examples"}
    )
    assert row["stability"] in STABILITIES
    if isinstance(row["type"], dict):
        assert row["type"].keys() == {"members"}
        for member in row["type"]["members"]:
            assert member.keys() == {"id", "value", "brief", "stability"}
            assert member["id"] == member["value"]
    else:
        assert row["examples"]
        assert {type(example) for example in row["examples"]} == {TYPES[row["type"]]}


@pytest.mark.parametrize("group", GROUPS, ids=by_id)
def test_a_reference_repeats_nothing_that_only_the_definition_may_say(group: dict[str, Any]) -> None:
    for row in group["attributes"]:
        if "ref" in row:
            refined = {"ref", "brief", "note", "examples"}
            if group["type"] != "attribute_group":
                assert "requirement_level" in row
                refined |= {"requirement_level"}
            if group["type"] == "span":
                refined |= {"sampling_relevant"}
            assert row.keys() <= refined


def test_a_condition_is_said_where_one_is_named() -> None:
    for row in ATTRIBUTES:
        match row.get("requirement_level", "required"):
            case "required" | "opt_in":
                pass
            case {"conditionally_required": str(condition)} | {"recommended": str(condition)}:
                assert condition
            case other:
                raise AssertionError(f"{row['ref']}: {other}")


def test_names_are_spelled_as_the_conventions_want_and_none_is_the_namespace_of_another() -> None:
    names = [row["id"] for row in DEFINITIONS]
    assert [name for name in names if not re.fullmatch(r"insider(\.[a-z]+(_[a-z]+)*)+", name)] == []
    assert [name for name in names if any(other.startswith(f"{name}.") for other in names)] == []


def test_the_manifest_names_this_version_and_the_conventions_that_it_builds_on() -> None:
    manifest = yaml.safe_load((MODEL / "manifest.yaml").read_text("utf-8"))
    assert manifest["schema_url"].rpartition("/")[2] == __version__
    (dependency,) = manifest["dependencies"]
    version = dependency["schema_url"].removeprefix("https://opentelemetry.io/schemas/")
    assert f"/v{version}.zip[model]" in dependency["registry_path"]
