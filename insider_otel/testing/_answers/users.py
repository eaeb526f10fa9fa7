"""Answers of unification.useinsider.com and crm.api.useinsider.com: users are really kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from insider_otel.testing._account import Profile, flat_identifiers
from insider_otel.testing._answers._ask import Answer, Ask, is_email, is_phone
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply, as_dict, as_list

_DONE = Reply.of(200, "{}\n")
_NOBODY = "either insider_id or idenifiers must be specified"  # as Insider spells it
_NEEDED_BY_EVENT = ("event_group_id", "unit_sale_price", "currency")
_EVENTS_WITH_NEEDS = frozenset({"purchase", "cart_page_view"})
_QUOTA_PER_CALL = 1.0
_QUOTA_PER_EVENT = 0.5  # Insider's own sample: three kinds of events cost 2.5


def _upsert(ask: Ask) -> Reply:
    return _each_user(ask, _user_errors, ask.account.upsert)


def _attribute_delete(ask: Ask) -> Reply:
    def delete(user: dict[str, Any]) -> None:
        profile = _find(ask, user)
        if profile is None:
            return
        _drop(profile.attributes, user)
        _drop(as_dict(profile.attributes.get("custom")), as_dict(user.get("custom")))

    return _each_user(ask, _identifier_errors, delete)


def _drop(attributes: dict[str, Any], said: dict[str, Any]) -> None:
    whole = as_list(said.get("whole"))
    for name in [name for name in attributes if name in whole]:
        del attributes[name]
    for name, values in as_dict(said.get("partial")).items():
        held = as_list(attributes.get(name))
        if held:
            attributes[name] = [value for value in held if value not in as_list(values)]


def _each_user(ask: Ask, errors_of: Any, act: Any) -> Reply:
    """Take the good users, refuse the others, and count both: 200 even if none was good."""
    users = as_list(ask.fields.get("users"))
    if not users:
        return documented_reply("users_not_defined")
    errors: dict[str, list[str]] = {}
    taken = 0
    for index, user in enumerate(users):
        found = errors_of(as_dict(user))
        if found:
            errors |= {f"users.{index}.{path}": messages for path, messages in found.items()}
        else:
            act(as_dict(user))
            taken += 1
    failed = len(users) - taken
    return Reply.of(
        200,
        {
            "data": {
                "successful": {"count": taken} if taken else {},
                "fail": {"count": failed, "errors": errors} if failed else {},
            }
        },
    )


def _user_errors(user: dict[str, Any]) -> dict[str, list[str]]:
    errors = _identifier_errors(user)
    for index, given in enumerate(as_list(user.get("events"))):
        event = as_dict(given)
        name = event.get("event_name")
        if not name:
            errors[f"events.{index}.event_name.required"] = ["event_name is required"]
        elif not isinstance(name, str):
            errors[f"events.{index}.event_name.type(string)"] = [f"event_name must be string: {name}"]
        elif name in _EVENTS_WITH_NEEDS:
            parameters = as_dict(event.get("event_params"))
            missing = [needed for needed in _NEEDED_BY_EVENT if parameters.get(needed) in (None, "")]
            if missing:
                errors[f"events.{index}.event_params.*.required"] = [
                    f"{needed} parameter is required on {name} event" for needed in missing
                ]
        if _moment(event.get("timestamp")) is None:
            errors[f"events.{index}.timestamp.type(date)"] = [f"timestamp must be date: {event['timestamp']}"]
    return errors


def _identifier_errors(user: dict[str, Any]) -> dict[str, list[str]]:
    if not user.get("insider_id") and not as_dict(user.get("identifiers")):
        return {"identifiers.required": [_NOBODY], "insider_id.required": [_NOBODY]}
    errors: dict[str, list[str]] = {}
    for place in ("identifiers", "attributes"):
        held = as_dict(user.get(place))
        if "email" in held and not is_email(held["email"]):
            errors[f"{place}.*.regexp(^.+@.+\\..+$)"] = [f"not a valid email address: {held['email']}"]
        if "phone_number" in held and not is_phone(held["phone_number"]):
            errors[f"{place}.*.regexp(^\\+[1-9]\\d{{6,14}}$)"] = [
                f"user has an invalid phone number: {held['phone_number']}"
            ]
        if "uuid" in held and not isinstance(held["uuid"], str):
            errors[f"{place}.*.type(string)"] = [f"uuid must be string: {held['uuid']}"]
    return errors


def _identity_update(ask: Ask) -> Reply:
    old = flat_identifiers(ask.fields.get("old_identifier"))
    new = flat_identifiers(ask.fields.get("new_identifier"))
    if len(old) != 1 or len(new) != 1:
        return documented_reply("identifiers_not_exactly_one")
    if old == new:
        return documented_reply("identifiers_same")
    if ask.account.profile(new) is not None:
        return documented_reply("new_identifier_taken")
    profile = ask.account.profile(old)
    if profile is None:
        return documented_reply("user_not_found")
    for kind in old:
        del profile.identifiers[kind]
    profile.identifiers |= new
    return _DONE


def _identity_delete(ask: Ask) -> Reply:
    identifiers = flat_identifiers(ask.fields.get("identifiers"))
    if len(identifiers) != 1:
        return documented_reply("no_valid_identifier")
    profile = ask.account.profile(identifiers)
    if profile is None:
        return documented_reply("user_not_found")
    if len(profile.identifiers) == 1:
        return documented_reply("sole_identifier")
    for kind in identifiers:
        del profile.identifiers[kind]
    return _DONE


def _profile(ask: Ask) -> Reply:
    profile = _find(ask, ask.fields)
    if profile is None:
        return documented_reply("user_not_found")
    attributes = profile.attributes | {
        kind: value for kind, value in profile.identifiers.items() if not kind.startswith("custom.")
    }
    wished = as_list(ask.fields.get("attributes"))
    if wished and "*" not in wished:
        attributes = {name: value for name, value in attributes.items() if name in wished}
    wanted = as_list(as_dict(ask.fields.get("events")).get("wanted"))
    body: dict[str, Any] = {"attributes": attributes, "events": _events(profile, wanted)}
    ask.cost = _QUOTA_PER_CALL + _QUOTA_PER_EVENT * len(wanted)
    if ask.fields.get("quota") is True:
        total = ask.operation.limit.count if ask.operation.limit else 0
        body["quota"] = {"cost": ask.cost, "used": ask.used + ask.cost, "total": total}
    return Reply.of(200, body)


def _events(profile: Profile, wanted: list[Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for wish in wanted:
        name = as_dict(wish).get("event_name", wish)
        parameters = as_list(as_dict(wish).get("params"))
        for event in profile.events:
            if event.get("event_name") == name:
                held = as_dict(event.get("event_params"))
                shown = {key: value for key, value in held.items() if not parameters or key in parameters}
                found.setdefault(str(name), []).append(shown | {"created_date": _moment(event.get("timestamp"))})
    return found


def _moment(timestamp: Any) -> str | None:
    """An event's moment as ``user.profile`` shows it; None if there is no such moment, as of milliseconds."""
    if isinstance(timestamp, str):
        return timestamp
    try:
        moment = datetime.fromtimestamp(0 if timestamp is None else timestamp, UTC)
    except (OSError, OverflowError, TypeError, ValueError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _delete(ask: Ask) -> Reply:
    if not flat_identifiers(ask.fields.get("identifiers")) and not ask.fields.get("insider_id"):
        return documented_reply("no_valid_identifier")
    profile = _find(ask, ask.fields)
    if profile is not None:
        ask.account.profiles.remove(profile)
    return _DONE


def _anonymize(ask: Ask) -> Reply:
    profile = _find(ask, ask.fields)
    if profile is None:
        return documented_reply("user_not_found")
    profile.identifiers.clear()
    profile.attributes.clear()
    return Reply.of(200)


def _find(ask: Ask, user: dict[str, Any]) -> Profile | None:
    return ask.account.profile(flat_identifiers(user.get("identifiers")), user.get("insider_id"))


ANSWERS: dict[str, Answer] = {
    "user.upsert": _upsert,
    "user.attribute_delete": _attribute_delete,
    "user.identity_update": _identity_update,
    "user.identity_delete": _identity_delete,
    "user.profile": _profile,
    "user.delete": _delete,
    "user.anonymize": _anonymize,
    "contact.anonymize": _anonymize,
}
