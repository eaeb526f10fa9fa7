"""Answers of the hosts that carry messages: mail, SMS, WhatsApp, subscriptions, segments, journeys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from insider_otel.testing._answers._ask import Answer, Ask, field_error, is_email, is_phone
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply, as_dict, as_list

_SMS_LENGTH = 670
_SEGMENT_NAME_LENGTH = 40
_OK = Reply.of(200, {"statusMessage": "OK"})


# ------------------------------------------------------------------------------------------------------------ mail

_MAIL_PARAMETERS = (("subject", "subject"), ("to", "tos"), ("from", "from"))


def _mail_send(ask: Ask) -> Reply:
    mail = ask.fields
    missing = [shown for shown, name in _MAIL_PARAMETERS if not mail.get(name)]
    if not mail.get("content") and not mail.get("template_id"):
        missing.append("content")
    if missing:
        errors = [f"Missing '{name}' parameter" for name in missing]
        return Reply.of(400, {"errors": errors, "message": "bad-request", "status": 400})
    if any(not is_email(as_dict(to).get("email")) for to in as_list(mail["tos"])):
        return documented_reply("missing_email_in_tos")
    callback = as_dict(mail.get("callback"))
    if callback and not _is_url(callback.get("url")):
        return documented_reply("invalid_callback_url")
    return Reply.of(202, {"message_id": ask.account.uuid(), "status_message": "accepted"})


def _is_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


# ------------------------------------------------------------------------------------------------------------- SMS


def _sms_send(ask: Ask) -> Reply:
    for name in ("to", "content"):
        if not ask.fields.get(name):
            return field_error(name)
    wrong = _sms_error(ask.fields["to"], ask.fields["content"])
    if wrong is not None:
        return field_error("to" if wrong is _NO_PHONE else "content", wrong)
    return Reply.of(202, {"message": "Accepted", "messageId": f"sms-{ask.account.uuid()}"})


_NO_PHONE = "This field must be a valid phone number."
_TOO_LONG = f"This field must have {_SMS_LENGTH} characters at most."


def _sms_error(phone: object, content: object) -> str | None:
    if not is_phone(phone):
        return _NO_PHONE
    return _TOO_LONG if len(str(content)) > _SMS_LENGTH else None


def _sms_send_bulk(ask: Ask) -> Reply:
    """Takes the good messages and lists the others next to them."""
    messages = as_list(ask.fields.get("messages"))
    if not messages:
        return field_error("messages")
    taken: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for index, given in enumerate(messages):
        message = as_dict(given)
        phone, content = message.get("phoneNumber"), message.get("content")
        wrong = _sms_error(phone, content) if content else "This field is required."
        if wrong is None:
            taken.append({"phoneNumber": phone, "messageSid": f"sms-{ask.account.uuid()}"})
        else:
            field = "phoneNumber" if wrong is _NO_PHONE else "content"
            errors.append({"field": f"messages[{index}].{field}", "error": wrong})
    return Reply.of(202, {"message": "Accepted", "messageIds": taken, "errors": errors})


# -------------------------------------------------------------------------------------------------------- WhatsApp


def _whatsapp_send(ask: Ask) -> Reply:
    messages = as_list(ask.fields.get("messages"))
    if not messages:
        return field_error("messages")
    for index, message in enumerate(messages):
        if not is_phone(as_dict(message).get("phoneNumber")):
            return field_error(f"messages[{index}].phoneNumber", _NO_PHONE)
    return _keys(ask, messages)


def _gateway_send(ask: Ask) -> Reply:
    messages = as_list(ask.fields.get("messages"))
    good = is_phone(ask.fields.get("from")) and all(
        is_phone(as_dict(message).get("phone_number")) and as_dict(as_dict(message).get("message")).get("type")
        for message in messages
    )
    if not messages or not good:
        error = {"message": "Failed to validate request.", "code": "2002"}
        return Reply.of(400, {"message": "Failed to validate request.", "error": error})
    return _keys(ask, messages)


def _keys(ask: Ask, messages: list[Any]) -> Reply:
    return Reply.of(200, {"keys": [f"whatsapp-{ask.account.uuid()}" for _ in messages]})


def _token(ask: Ask) -> Reply:
    if ask.fields.get("grant_type") not in {"client_credentials", "refresh_token", "authorization_code"}:
        return Reply.of(400, {"error": "unsupported_grant_type"})
    return Reply.of(200, {"access_token": ask.account.uuid(), "token_type": "bearer", "expires_in": 5400})


# ---------------------------------------------------------------------------------------- subscriptions and segments


def _subscription(ask: Ask) -> Reply:
    if is_email(ask.fields.get("email")) or is_phone(ask.fields.get("phone_number")):
        return _OK
    return documented_reply("bad_request")


def _subscription_batch(ask: Ask) -> Reply:
    return _OK if ask.operation.count_records(ask.payload) else documented_reply("bad_request")


def _segment_upload(ask: Ask) -> Reply:
    name, url = ask.fields.get("segmentName"), ask.fields.get("fileUrl")
    if not isinstance(name, str) or not name or len(name) > _SEGMENT_NAME_LENGTH:
        return documented_reply("invalid_payload_405")
    if not isinstance(url, str) or ".csv" not in url:
        return Reply.of(400, {"statusMessage": "The CSV URL is invalid. The URL should include .csv extension."})
    if name in ask.account.segments:
        return documented_reply("segment_name_in_use")
    ask.account.segments.add(name)
    return _OK


# -------------------------------------------------------------------------------------------------------- journeys


def _architect_send(ask: Ask) -> Reply:
    """The shapes of these replies are not documented; that a repeated key is rejected is."""
    for name in ("idempotency_key", "targets", "users"):
        if not ask.fields.get(name):
            return Reply.of(400, {"error": f"{name} is required."})
    key = ask.text("idempotency_key")
    if key in ask.account.idempotency_keys:
        return Reply.of(409, {"error": "idempotency_key was used before"})
    ask.account.idempotency_keys.add(key)
    return Reply.of(202, {"message": "Accepted", "status": 202})


_SUBSCRIPTIONS: dict[str, Answer] = {}
for _channel in ("email", "sms", "whatsapp"):
    for _wish in ("subscribe", "unsubscribe"):
        _SUBSCRIPTIONS[f"contact.{_channel}_{_wish}"] = _subscription
        _SUBSCRIPTIONS[f"contact.{_channel}_{_wish}_batch"] = _subscription_batch

ANSWERS: dict[str, Answer] = {
    "mail.send": _mail_send,
    "sms.send": _sms_send,
    "sms.send_bulk": _sms_send_bulk,
    "whatsapp.send": _whatsapp_send,
    "whatsapp.conversational_send": _whatsapp_send,
    "whatsapp.gateway_send": _gateway_send,
    "whatsapp.gateway_conversational_send": _gateway_send,
    "gateway.token": _token,
    "segment.upload": _segment_upload,
    "architect.send": _architect_send,
    **_SUBSCRIPTIONS,
}
