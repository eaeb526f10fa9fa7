"""Answers of verify.useinsider.com: real one-time codes, which run out and lock after too many attempts."""

from __future__ import annotations

from datetime import UTC, datetime

from insider_otel.testing._account import Code
from insider_otel.testing._answers._ask import Answer, Ask, field_error, is_phone
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply

_CHANNELS = ("sms", "whatsapp")
_SUCCESS = {"status": "success"}
_LENGTH = 4
_ATTEMPTS = 3
_SECONDS = 180
_MOST = 1_000_000
"""Of digits, attempts and seconds. What Insider allows is not documented; nobody means more."""


def _generate(ask: Ask) -> Reply:
    fields = ask.fields
    channel, to = fields.get("channel"), fields.get("to")
    if channel not in _CHANNELS:
        return documented_reply("channel_not_sms")
    if not to:
        return field_error("to")
    if not is_phone(to):
        return documented_reply("invalid_phone_for_sms")
    length, attempts, ttl = (
        _whole(fields.get(name), default)
        for name, default in (("code-length", _LENGTH), ("max-attempts", _ATTEMPTS), ("ttl", _SECONDS))
    )
    if max(length, attempts, ttl) > _MOST:
        return documented_reply("invalid_request_payload_list")
    digits = "".join(ask.account.random.choices("0123456789", k=length))
    ask.account.codes[to] = Code(digits, ask.now + ttl, attempts)
    created = datetime.fromtimestamp(ask.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"channel": channel, "dateCreated": created, "dateUpdated": created, "locale": fields.get("locale", "en")}
    key = {"key": f"whatsapp-{ask.account.uuid()}"} if channel == "whatsapp" else {}
    return Reply.of(202, {**key, **body, "maxAttempts": attempts, "ttl": ttl})


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _check(ask: Ask) -> Reply:
    to, code = ask.text("to"), ask.text("code")
    for name, value in (("to", to), ("code", code)):
        if not value:
            return field_error(name)
    waiting = ask.account.codes.get(to)
    if waiting is None or waiting.expires <= ask.now:
        return documented_reply("otp_code_not_found")
    if not waiting.attempts_left:
        return documented_reply("otp_attempts_exceeded")
    if code != waiting.code:
        waiting.attempts_left -= 1
        return documented_reply("otp_code_invalid")
    del ask.account.codes[to]
    return Reply.of(202, _SUCCESS)


def _channel_create(ask: Ask) -> Reply:
    channel = ask.fields.get("channel")
    if channel not in _CHANNELS:
        return documented_reply("channel_not_sms")
    if channel in ask.account.channels:
        return documented_reply("channel_already_exists")
    ask.account.channels[channel] = ask.fields
    return Reply.of(201, _SUCCESS)


def _channel_update(ask: Ask) -> Reply:
    channel = ask.fields.get("channel")
    if channel not in _CHANNELS:
        return documented_reply("channel_not_sms")
    ask.account.channels[channel] = ask.fields
    return Reply.of(202, _SUCCESS)


def _template(ask: Ask) -> Reply:
    channel, locale = ask.fields.get("channel"), ask.fields.get("locale")
    if channel not in _CHANNELS:
        return documented_reply("channel_not_whatsapp")
    if not locale:
        return field_error("locale")
    if ask.account.templates.get((channel, str(locale))) == ask.fields:
        return documented_reply("no_changes_detected")
    ask.account.templates[channel, str(locale)] = ask.fields
    return Reply.of(202, _SUCCESS)


def _template_list(ask: Ask) -> Reply:
    templates: dict[str, list[object]] = {}
    for (channel, _), template in ask.account.templates.items():
        shown = {name: value for name, value in template.items() if name != "channel"}
        templates.setdefault(channel, []).append(shown)
    return Reply.of(200, {"templates": templates})


ANSWERS: dict[str, Answer] = {
    "verify.generate": _generate,
    "verify.check": _check,
    "verify.channel_create": _channel_create,
    "verify.channel_update": _channel_update,
    "verify.template_create": _template,
    "verify.template_update": _template,
    "verify.template_list": _template_list,
}
