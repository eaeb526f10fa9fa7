"""Answers of the push hosts: web push, mobile push, in-app, live activities."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from insider_otel.testing._answers._ask import Answer, Ask
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply, as_dict, as_list

# -------------------------------------------------------------------------------------------------------- web push

_NUMBER = re.compile(r"[0-9]{1,18}")


def _create(ask: Ask) -> Reply:
    missing = _missing(ask.fields, ("partner_id", "title", "language"))
    return missing or Reply.of(201, {"success": True, "campaign_id": ask.account.number()})


def _launch(ask: Ask) -> Reply:
    campaign = ask.request.path.rpartition("/")[2]
    missing = _missing(ask.fields, ("partner_id", "title", "description", "link"))
    if missing:
        return missing
    if campaign in ask.account.deleted_campaigns:
        return documented_reply("campaign_not_found_424")
    return _campaign(campaign)


def _delete(ask: Ask) -> Reply:
    campaign = ask.request.path.rpartition("/")[2]
    if campaign in ask.account.deleted_campaigns:
        return documented_reply("campaign_not_found_424")
    ask.account.deleted_campaigns.add(campaign)
    return _campaign(campaign)


def _campaign(number: str) -> Reply:
    return Reply.of(200, {"success": True, "campaign_id": int(number) if _NUMBER.fullmatch(number) else number})


def _missing(fields: dict[str, Any], needed: tuple[str, ...]) -> Reply | None:
    missing = {name: [f"The {name} field is required."] for name in needed if not fields.get(name)}
    return Reply.of(422, {"status_code": 422, "errors": missing}) if missing else None


# ----------------------------------------------------------------------------------------------------- mobile push


def _notify(ask: Ask) -> Reply:
    notifications = [as_dict(each) for each in as_list(ask.fields.get("notifications"))]
    if not notifications:
        return documented_reply("notifications_empty")
    for notification in notifications:
        wrong = _notification_error(notification)
        if wrong is not None:
            return documented_reply(wrong)
    if ask.fields.get("async") is True:
        return Reply.of(202, {"message": "Async request accepted"})
    report = as_list(ask.fields.get("report_attributes"))
    successes = [
        {"INSIDER.device_token": ask.account.uuid()}
        | {name: value for name, value in as_dict(notification["identifiers"]).items() if name in report}
        for notification in notifications
    ]
    return Reply.of(200, {"successes": successes, "errors": {}})


def _notification_error(notification: dict[str, Any]) -> str | None:
    if not as_dict(notification.get("identifiers")):
        return "empty_insider_identifiers"
    for name in ("camp_id", "channel_id"):
        number = notification.get(name, 1)
        if not isinstance(number, int) or number <= 0:
            return "negative_integer"
    if notification.get("advanced_push_type", "Carousel") not in ("Carousel", "Slider"):
        return "invalid_advanced_push_type"
    for platform in ("android", "ios"):
        if "aps" in as_dict(as_dict(notification.get(platform)).get("deep_link")):
            return "blacklisted_deeplink"
    return None


def _message_center(ask: Ask) -> Reply:
    limit = ask.fields.get("limit", 20)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        return documented_reply("limit_out_of_range")
    start, end = ask.fields.get("start_date", 0), ask.fields.get("end_date", 0)
    if not isinstance(start, int) or not isinstance(end, int) or start > end:
        return Reply.of(400, "bad payload")
    return Reply.of(200, [])


def _consent(ask: Ask) -> Reply:
    if not ask.fields.get("partner_name") or not as_dict(ask.fields.get("target")).get("udid"):
        return Reply.of(400, "Bad Payload.")
    return Reply.of(200, {"status": "ok"})


# ---------------------------------------------------------------------------------------------------------- in-app

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_DAYS = 90


def _inapp(ask: Ask) -> Reply:
    has_id, has_range = "inapp_id" in ask.fields, "created_between" in ask.fields
    if has_id == has_range:
        return documented_reply("inapp_id_and_created_between" if has_id else "inapp_id_or_created_between_missing")
    if has_id:
        return documented_reply("inapp_not_found")
    between = as_dict(ask.fields["created_between"])
    days: dict[str, date] = {}
    for name, wrong in (("from", "invalid_from_date"), ("to", "invalid_to_date")):
        day = _day(between.get(name))
        if day is None:
            return documented_reply(wrong)
        days[name] = day
    if days["to"] < days["from"]:
        return documented_reply("to_before_from")
    if (days["to"] - days["from"]).days > _MOST_DAYS:
        return documented_reply("range_over_90_days")
    return Reply.of(200, {"data": []})


def _day(value: object) -> date | None:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------- live activities

_NOT_FOUND = Reply.of(404, {"error": "activity not found", "code": "NOT_FOUND"})
_INVALID = Reply.of(400, {"error": "request body is not valid", "code": "REQUEST_INVALID"})
_ALREADY_STARTED = Reply.of(409, {"error": "activity already started", "code": "ALREADY_STARTED"})
_REASONS = (
    "push_permission_disabled",
    "unsupported_platform",
    "unsupported_os_version",
    "push_to_start_token_missing",
    "user_not_found",
)


def _register(ask: Ask) -> Reply:
    if not ask.fields.get("activity_type") or not as_list(ask.fields.get("insider_ids")):
        return _INVALID
    activity = ask.account.uuid()
    ask.account.activities[activity] = False
    return _matched(activity, added=len(as_list(ask.fields["insider_ids"])))


def _users_changed(ask: Ask) -> Reply:
    activity = ask.text("activity_id")
    if activity not in ask.account.activities:
        return _NOT_FOUND
    count = len(as_list(ask.fields.get("insider_ids")))
    if ask.operation.name == "live_activity.remove_users":
        return _matched(activity, removed=count)
    return _ALREADY_STARTED if ask.account.activities[activity] else _matched(activity, added=count)


def _matched(activity: str, *, added: int = 0, removed: int = 0) -> Reply:
    counts = {"matched": added, "added": added, "refreshed": 0, "removed": removed}
    skipped = dict.fromkeys(_REASONS, 0)
    return Reply.of(200, {"status": "success", "activity_id": activity, **counts, "skipped": skipped})


def _start(ask: Ask) -> Reply:
    activity = ask.text("activity_id")
    if activity not in ask.account.activities:
        return _NOT_FOUND
    if ask.account.activities[activity]:
        return _ALREADY_STARTED
    ask.account.activities[activity] = True
    return _TRIGGERED


def _update(ask: Ask) -> Reply:
    return _TRIGGERED if ask.account.activities.get(ask.text("activity_id")) else _NOT_FOUND


def _end(ask: Ask) -> Reply:
    activity = ask.text("activity_id")
    if not ask.account.activities.get(activity):
        return _NOT_FOUND
    del ask.account.activities[activity]
    return _TRIGGERED


_TRIGGERED = Reply.of(200, {"status": "success", "sessions_triggered": 1})

ANSWERS: dict[str, Answer] = {
    "web_push.create": _create,
    "web_push.launch": _launch,
    "web_push.launch_v2": _launch,
    "web_push.delete": _delete,
    "push.notify": _notify,
    "push.message_center": _message_center,
    "push.consent_set": _consent,
    "inapp.details": _inapp,
    "live_activity.register": _register,
    "live_activity.add_users": _users_changed,
    "live_activity.remove_users": _users_changed,
    "live_activity.start": _start,
    "live_activity.update": _update,
    "live_activity.end": _end,
}
