"""The table of operations is sound, and every request finds its row."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import fields
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Limit, Operation, Resend, find, hosts, operations

TABLE = tomllib.loads(files("insider_otel.api").joinpath("operations.toml").read_text("utf-8"))
BY_NAME = {operation.name: operation for operation in operations()}

UNIFICATION = "unification.useinsider.com"
CONTACT = "contact.useinsider.com"
MAIL = "mail.useinsider.com"
TEMPLATES = "email.api.useinsider.com"
SMS = "sms.useinsider.com"
WHATSAPP = "whatsapp.useinsider.com"
GATEWAY = "gw.useinsider.com"
VERIFY = "verify.useinsider.com"
WEB_PUSH = "web-push.api.useinsider.com"
MOBILE = "mobile.useinsider.com"
MOBILE_API = "mobile.api.useinsider.com"
LIVE_ACTIVITY = "live-activity.api.useinsider.com"
ARCHITECT_ANALYTICS = "architect-analytics.api.useinsider.com"
CATALOG = "catalog.api.useinsider.com"
SEARCH = "ineureka.api.useinsider.com"
ANALYTICS = "analytics.api.useinsider.com"

# Every endpoint that is known, as it is called on the wire.
ENDPOINTS = [
    ("POST", UNIFICATION, "/api/user/v1/upsert", "user.upsert"),
    ("POST", UNIFICATION, "/api/user/v1/attribute/delete", "user.attribute_delete"),
    ("PATCH", UNIFICATION, "/api/user/v1/identity", "user.identity_update"),
    ("DELETE", UNIFICATION, "/api/user/v1/identity", "user.identity_delete"),
    ("POST", UNIFICATION, "/api/user/v1/profile", "user.profile"),
    ("POST", UNIFICATION, "/api/user/v1/delete", "user.delete"),
    ("POST", UNIFICATION, "/api/user/v1/anonymize", "user.anonymize"),
    ("POST", UNIFICATION, "/api/contact/v1/anonymize", "contact.anonymize"),
    ("POST", UNIFICATION, "/api/raw/v1/export", "raw.export"),
    ("POST", UNIFICATION, "/api/user/v1/delete-single-event", "event.delete"),
    ("POST", UNIFICATION, "/api/user/v1/update-single-event", "event.update"),
    ("GET", UNIFICATION, "/api/lookup/v1/stores/rows", "lookup.read"),
    ("POST", UNIFICATION, "/api/lookup/v1/stores", "lookup.manage"),
    ("PUT", UNIFICATION, "/api/lookup/v1/stores/rows", "lookup.manage"),
    ("PATCH", UNIFICATION, "/api/lookup/v1/stores", "lookup.manage"),
    ("DELETE", UNIFICATION, "/api/lookup/v1/stores/rows/7", "lookup.manage"),
    ("POST", UNIFICATION, "/api/user/v3/metadata/columns", "metadata.columns"),
    ("POST", UNIFICATION, "/api/event/v1/collect", "event.collect"),
    ("POST", UNIFICATION, "/api/event/v1/insert", "event.insert"),
    ("POST", "crm.api.useinsider.com", "/delete", "user.delete_legacy"),
    ("POST", CONTACT, "/email/v1/unsubscribe", "contact.email_unsubscribe"),
    ("POST", CONTACT, "/sms/v1/unsubscribe", "contact.sms_unsubscribe"),
    ("POST", CONTACT, "/whatsapp/v1/unsubscribe", "contact.whatsapp_unsubscribe"),
    ("POST", CONTACT, "/email/v1/subscribe", "contact.email_subscribe"),
    ("POST", CONTACT, "/sms/v1/subscribe", "contact.sms_subscribe"),
    ("POST", CONTACT, "/whatsapp/v1/subscribe", "contact.whatsapp_subscribe"),
    ("POST", CONTACT, "/email/v2/unsubscribe", "contact.email_unsubscribe_batch"),
    ("POST", CONTACT, "/sms/v2/unsubscribe", "contact.sms_unsubscribe_batch"),
    ("POST", CONTACT, "/whatsapp/v2/unsubscribe", "contact.whatsapp_unsubscribe_batch"),
    ("POST", CONTACT, "/email/v2/subscribe", "contact.email_subscribe_batch"),
    ("POST", CONTACT, "/sms/v2/subscribe", "contact.sms_subscribe_batch"),
    ("POST", CONTACT, "/whatsapp/v2/subscribe", "contact.whatsapp_subscribe_batch"),
    ("POST", CONTACT, "/fps/v1/upload", "segment.upload"),
    ("POST", MOBILE, "/api/custom_segment/v1/upload", "segment.upload_mobile"),
    ("POST", MAIL, "/mail/v1/send", "mail.send"),
    ("POST", MAIL, "/content/v1/campaign/create", "mail.campaign_create"),
    (
        "POST",
        MAIL,
        "/content/v1/template-migration/acme/extract-premigration-variables",
        "mail.premigration_variables",
    ),
    ("POST", TEMPLATES, "/content/template/v1/create", "template.create"),
    ("POST", TEMPLATES, "/content/template/v1/update", "template.update"),
    ("POST", TEMPLATES, "/content/template/v1/duplicate", "template.duplicate"),
    ("POST", TEMPLATES, "/content/template/v1/delete", "template.delete"),
    ("POST", TEMPLATES, "/content/template/v1/search", "template.search"),
    ("POST", SMS, "/v1/send", "sms.send"),
    ("POST", SMS, "/v1/sendMultipleMessage", "sms.send_bulk"),
    ("GET", SMS, "/analytics/v1/list", "sms.analytics_list"),
    ("POST", SMS, "/analytics/v1/campaign", "sms.analytics_campaign"),
    ("POST", SMS, "/analytics/v1/overall", "sms.analytics_overall"),
    ("POST", SMS, "/analytics/v1/transactional", "sms.analytics_transactional"),
    ("POST", SMS, "/analytics/v1/verify", "sms.analytics_verify"),
    ("POST", WHATSAPP, "/v1/send", "whatsapp.send"),
    ("POST", WHATSAPP, "/v1/conversational/send", "whatsapp.conversational_send"),
    ("POST", WHATSAPP, "/v1/statistics/overall", "whatsapp.statistics_overall"),
    ("POST", WHATSAPP, "/v1/statistics/campaign", "whatsapp.statistics_campaign"),
    ("POST", WHATSAPP, "/v1/statistics/transactional", "whatsapp.statistics_transactional"),
    ("POST", WHATSAPP, "/v1/statistics/campaign-list", "whatsapp.statistics_campaign_list"),
    ("POST", GATEWAY, "/oauth2/token", "gateway.token"),
    ("POST", GATEWAY, "/api/wa/v2/transactional/messages/send", "whatsapp.gateway_send"),
    ("POST", GATEWAY, "/api/wa/v2/conversational/messages/send", "whatsapp.gateway_conversational_send"),
    ("POST", GATEWAY, "/api/wa/v2/transactional/settings", "whatsapp.settings"),
    ("POST", GATEWAY, "/api/wa/v2/conversational/settings", "whatsapp.conversational_settings"),
    ("POST", VERIFY, "/v1/channel/create", "verify.channel_create"),
    ("POST", VERIFY, "/v1/channel/update", "verify.channel_update"),
    ("POST", VERIFY, "/v1/template/create", "verify.template_create"),
    ("POST", VERIFY, "/v1/template/update", "verify.template_update"),
    ("GET", VERIFY, "/v1/template/list", "verify.template_list"),
    ("POST", VERIFY, "/v1/generate", "verify.generate"),
    ("POST", VERIFY, "/v1/check", "verify.check"),
    ("POST", WEB_PUSH, "/v1/single", "web_push.create"),
    ("POST", WEB_PUSH, "/v1/single/25696", "web_push.launch"),
    ("DELETE", WEB_PUSH, "/v1/single/25696", "web_push.delete"),
    ("POST", WEB_PUSH, "/v2/single/25696", "web_push.launch_v2"),
    ("POST", WEB_PUSH, "/v1/statistics/top-metrics", "web_push.top_metrics"),
    ("POST", WEB_PUSH, "/v1/statistics/overall-metrics", "web_push.overall_metrics"),
    ("POST", WEB_PUSH, "/v1/statistics/campaign-metrics", "web_push.campaign_metrics"),
    ("POST", MOBILE, "/api/v1/push/bulk", "push.bulk"),
    ("POST", MOBILE, "/api/v2/notification/user", "push.notify"),
    ("POST", MOBILE, "/api/message_center/v1", "push.message_center"),
    ("POST", MOBILE, "/api/v1/privacy/gdpr/consent/set", "push.consent_set"),
    ("POST", MOBILE, "/api/v1/notification/get_statistics", "push.statistics"),
    ("POST", MOBILE_API, "/v1/details/inapp", "inapp.details"),
    ("POST", MOBILE_API, "/v1/settings/certificate/firebase", "push.certificate_upload"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/register", "live_activity.register"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/start", "live_activity.start"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/update", "live_activity.update"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/end", "live_activity.end"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/add-users", "live_activity.add_users"),
    ("POST", LIVE_ACTIVITY, "/api/v1/live-activity/remove-users", "live_activity.remove_users"),
    ("POST", "architect.useinsider.com", "/v1/transactional/send", "architect.send"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/overall", "architect.overall"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/journeys", "architect.journeys"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/goals", "architect.goals"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/goals-analytics", "architect.goals_analytics"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/journey/89", "architect.journey"),
    ("GET", ARCHITECT_ANALYTICS, "/v1/element/64592", "architect.element"),
    ("POST", CATALOG, "/v2/ingest", "catalog.ingest"),
    ("POST", CATALOG, "/v2/ingest/nested", "catalog.ingest_nested"),
    ("POST", CATALOG, "/v2/update", "catalog.update"),
    ("POST", CATALOG, "/v2/update/nested", "catalog.update_nested"),
    ("POST", CATALOG, "/v2/locales/batch", "catalog.locales_batch"),
    ("GET", "recommendation.api.useinsider.com", "/v2/most-popular", "recommendation.get"),
    ("GET", "recommendationv2.api.useinsider.com", "/v2/chef", "recommendation.get"),
    ("GET", SEARCH, "/api/web/search", "search.query"),
    ("POST", SEARCH, "/api/web/search", "search.query"),
    ("GET", SEARCH, "/api/web/collections/Category", "search.collection"),
    ("POST", SEARCH, "/api/web/collections/Category", "search.collection"),
    ("GET", SEARCH, "/api/web/suggestions/query", "search.suggestions"),
    ("POST", "eurekaevent.api.useinsider.com", "/api/v1/events", "search.event"),
    ("GET", ANALYTICS, "/email/v1/campaign/list", "analytics.email_campaign_list"),
    ("GET", ANALYTICS, "/email/v2/campaign/list", "analytics.email_campaign_list_v2"),
    ("GET", ANALYTICS, "/email/v1/campaign/statistics", "analytics.email_campaign_statistics"),
    ("GET", ANALYTICS, "/email/v2/campaign/statistics", "analytics.email_campaign_statistics_v2"),
    ("GET", ANALYTICS, "/email/v1/overall", "analytics.email_overall"),
    ("GET", ANALYTICS, "/email/v2/overall", "analytics.email_overall_v2"),
    ("GET", ANALYTICS, "/onsite/v1/all", "analytics.onsite_overall"),
    ("GET", ANALYTICS, "/onsite/v1/campaign", "analytics.onsite_campaign"),
    ("POST", ANALYTICS, "/onsite/v2/all", "analytics.onsite_overall_v2"),
]


@pytest.mark.parametrize(("method", "host", "path", "name"), ENDPOINTS, ids=str)
def test_an_endpoint_is_found_under_its_name(method: str, host: str, path: str, name: str) -> None:
    found = find(method, host, path)
    assert found is BY_NAME[name]


def test_no_operation_is_missing_from_the_list_above() -> None:
    assert {operation.name for operation in operations()} == {name for *_, name in ENDPOINTS}


# ------------------------------------------------------------------------------------------------------ the table


def test_names_are_unique_and_of_the_agreed_form() -> None:
    names = [operation.name for operation in operations()]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z_]*\.[a-z][a-z0-9_]*", name)] == []
    assert "unlisted" not in names


def test_method_host_and_path_are_unique() -> None:
    requests = Counter(
        (method, operation.host, re.sub(r"\{.*?\}", "{}", operation.path.lower()))
        for operation in operations()
        for method in operation.methods
    )
    assert [request for request, count in requests.items() if count > 1] == []


def test_rows_use_known_columns_of_the_right_type() -> None:
    known = {field.name for field in fields(Operation)}
    for row in TABLE["operation"]:
        assert set(row) <= known, row["name"]
        assert isinstance(row.get("methods"), list), row["name"]
        assert isinstance(row.get("records", []), list), row["name"]
        assert isinstance(row.get("credentials", []), list), row["name"]
        assert isinstance(row.get("deferrable", False), bool), row["name"]


def test_hosts_are_lower_case_names_and_paths_are_absolute() -> None:
    assert [host for host in hosts() if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host)] == []
    assert [operation.name for operation in operations() if operation.host not in hosts()] == []
    assert [operation.name for operation in operations() if not re.fullmatch(r"(/[\w{}+.-]+)+", operation.path)] == []


def test_a_host_says_its_product_and_every_host_has_operations() -> None:
    used = {operation.host for operation in operations()}
    for host, row in TABLE["hosts"].items():
        main = row.get("alias_of", host)
        assert main in used, host
        assert TABLE["hosts"][main]["product"], host
    assert all(operation.product for operation in operations())


def test_methods_are_upper_case_http_methods() -> None:
    known = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert [operation.name for operation in operations() if not operation.methods] == []
    assert [operation.name for operation in operations() if not set(operation.methods) <= known] == []


def test_a_pool_names_its_first_operation_and_shares_its_limit() -> None:
    seen: set[str] = set()
    for row in TABLE["operation"]:
        seen.add(row["name"])
        operation = BY_NAME[row["name"]]
        first = BY_NAME[operation.pool]
        assert operation.pool in seen, f"{operation.name} comes before the first operation of its pool"
        assert first.pool == first.name, f"{operation.name} names a pool that is itself a member"
        assert operation.limit == first.limit
        if "pool" in row:
            assert "limit" not in row, f"{operation.name} shares a limit and states one"
            assert first.limit is not None, f"{operation.name} shares a limit that {first.name} does not have"


def test_numbers_are_sane() -> None:
    for operation in operations():
        limit = operation.limit
        if limit is not None:
            assert limit.count > 0, operation.name
            assert limit.window in {1, 60, 86_400}, operation.name
            assert limit.calendar == (limit.window == 86_400), operation.name
            assert limit.unit in {"request", "quota"}, operation.name
        for number in (operation.max_records, operation.max_bytes, operation.max_record_bytes):
            assert number is None or number > 0, operation.name
        if operation.max_records is not None:
            assert operation.records, f"{operation.name} limits records that nothing counts"
        if operation.max_record_bytes is not None:
            assert operation.max_bytes is not None, operation.name
            assert operation.max_record_bytes < operation.max_bytes, operation.name


def test_only_an_operation_with_a_duplicate_window_is_resent_inside_it() -> None:
    for operation in operations():
        assert (operation.resend is Resend.WINDOW) == (operation.duplicate_window is not None), operation.name
    assert BY_NAME["mail.send"].duplicate_window == 900


def test_reads_are_idempotent_and_never_deferred() -> None:
    for operation in operations():
        if operation.methods == ("GET",):
            assert operation.resend is Resend.IDEMPOTENT, operation.name
            assert not operation.deferrable, operation.name


def test_a_shopper_who_waits_is_not_deferred() -> None:
    assert not BY_NAME["verify.generate"].deferrable
    assert not BY_NAME["verify.check"].deferrable


def test_a_live_activity_is_never_started_twice() -> None:
    never = [operation.name for operation in operations() if operation.resend is Resend.NEVER]
    assert never == ["live_activity.start"]


def test_credentials_are_headers_or_fields_of_the_body() -> None:
    form = re.compile(r"[A-Za-z-]+|body:[a-z_.]+")
    for operation in operations():
        assert all(form.fullmatch(credential) for credential in operation.credentials), operation.name
    without = {operation.name for operation in operations() if not operation.credentials}
    assert without == {
        "user.delete_legacy",
        "architect.send",
        "push.consent_set",
        "search.query",
        "search.collection",
        "search.suggestions",
        "search.event",
    }


def test_every_row_says_where_it_is_from() -> None:
    known = {"PM", "RL", "DOC", "SEEN"}
    for operation in operations():
        sources = {source.partition(":")[0] for source in operation.source.split(", ")}
        assert sources <= known | {"AC"}, operation.name


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("user.upsert", Limit(25_000, 60)),
        ("user.attribute_delete", Limit(25_000, 60)),
        ("user.identity_delete", Limit(1_000, 60)),
        ("user.profile", Limit(1_000, 60, unit="quota")),
        ("mail.send", Limit(9_000, 1)),
        ("sms.send", Limit(200, 1)),
        ("sms.send_bulk", Limit(5, 1)),
        ("whatsapp.send", Limit(1_000, 1)),
        ("verify.generate", Limit(750, 60)),
        ("verify.check", Limit(750, 60)),
        ("catalog.update_nested", Limit(60, 60)),
        ("analytics.email_campaign_list", Limit(100, 60)),
    ],
)
def test_where_sources_disagree_the_newer_limit_stands(name: str, limit: Limit) -> None:
    assert BY_NAME[name].limit == limit


@pytest.mark.parametrize(
    ("name", "limit"), [("push.notify", Limit(1_000, 60)), ("whatsapp.conversational_send", Limit(10, 1))]
)
def test_where_the_newer_source_is_not_alone_the_lower_limit_stands_and_the_note_says_so(
    name: str, limit: Limit
) -> None:
    assert BY_NAME[name].limit == limit
    assert "the lower" in BY_NAME[name].note


def test_what_failed_counts_except_for_the_export_of_a_day() -> None:
    assert BY_NAME["raw.export"].limit == Limit(1, 86_400, calendar=True, counts_failures=False)
    limits = {operation.pool: operation.limit for operation in operations() if operation.limit is not None}
    assert [pool for pool, limit in limits.items() if not limit.counts_failures] == ["raw.export"]


# ------------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("path", ["/api/user/v1/upsert/", "//api/user//v1/upsert", "/API/User/v1/UPSERT"])
def test_slashes_and_case_do_not_hide_an_operation(path: str) -> None:
    assert find("POST", UNIFICATION, path) is BY_NAME["user.upsert"]


def test_case_does_not_hide_a_path_with_placeholders() -> None:
    assert find("GET", ARCHITECT_ANALYTICS, "/V1/Journey/89/") is BY_NAME["architect.journey"]


def test_a_placeholder_is_one_segment() -> None:
    found = find("GET", ARCHITECT_ANALYTICS, "/v1/journey/89/steps")
    assert found is not None
    assert found.name == "unlisted"


@pytest.mark.parametrize(
    ("method", "resend"),
    [
        ("GET", Resend.IDEMPOTENT),
        ("HEAD", Resend.IDEMPOTENT),
        ("PUT", Resend.IDEMPOTENT),
        ("DELETE", Resend.IDEMPOTENT),
        ("POST", Resend.ANSWERED),
        ("PATCH", Resend.ANSWERED),
        ("BREW", Resend.ANSWERED),
    ],
)
def test_an_unlisted_path_is_resent_as_its_method_allows(method: str, resend: Resend) -> None:
    found = find(method, MAIL, "/mail/v9/anything")
    assert found is not None
    assert (found.name, found.product, found.path, found.pool) == ("unlisted", "mail", "", f"unlisted:{MAIL}")
    assert found.resend is resend
    assert found.limit is None
    assert not found.deferrable


def test_an_unlisted_method_of_a_listed_path_is_unlisted() -> None:
    found = find("PUT", MAIL, "/mail/v1/send")
    assert found is not None
    assert found.name == "unlisted"


def test_a_host_with_two_names_has_its_product_under_both() -> None:
    found = find("POST", "recommendationv2.api.useinsider.com", "/nothing")
    assert found is not None
    assert found.product == "recommendation"


@pytest.mark.parametrize("host", ["example.com", "useinsider.com", "mail.useinsider.com.example", ""])
def test_another_host_is_none_of_ours(host: str) -> None:
    assert find("POST", host, "/mail/v1/send") is None


@pytest.mark.parametrize(("method", "host", "path", "name"), ENDPOINTS, ids=str)
def test_any_host_finds_by_path_alone(method: str, host: str, path: str, name: str) -> None:
    found = find(method, "*", path)
    shared = {"whatsapp.send": "sms.send"}  # the one path that two hosts have in common: the first row wins
    assert found is BY_NAME[shared.get(name, name)]


def test_sending_on_any_host_is_the_sms_one_and_on_its_own_host_the_whatsapp_one() -> None:
    assert find("POST", "*", "/v1/send") is BY_NAME["sms.send"]
    assert find("POST", WHATSAPP, "/v1/send") is BY_NAME["whatsapp.send"]


def test_any_host_has_unlisted_paths_too() -> None:
    found = find("POST", "*", "/nothing")
    assert found is not None
    assert (found.name, found.product, found.pool) == ("unlisted", "unlisted", "unlisted:*")


@given(method=st.text(max_size=8), path=st.text(max_size=60))
def test_any_path_on_an_insider_host_finds_something(method: str, path: str) -> None:
    assert find(method, MAIL, path) is not None


def test_a_long_hostile_path_is_answered_at_once() -> None:
    started = time.process_time()
    find("GET", UNIFICATION, "/api/lookup/v1/" + "/a" * 100_000)
    find("GET", ARCHITECT_ANALYTICS, "/" * 1_000_000)
    assert time.process_time() - started < 1


def test_importing_reads_no_file() -> None:
    code = "import insider_otel.api.operations as o; assert o._registry.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# ------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("name", "payload", "count"),
    [
        ("user.upsert", {"users": [{}, {}]}, 2),
        ("user.upsert", {"users": []}, 0),
        ("user.upsert", {"users": {}}, None),
        ("user.upsert", {}, None),
        ("user.upsert", [1, 2], None),
        ("user.upsert", "users", None),
        ("catalog.ingest", [{}, {}, {}], 3),
        ("catalog.ingest", {"item_id": "A"}, None),
        ("contact.email_subscribe_batch", {"emails": ["jane@example.com"]}, 1),
        ("contact.email_subscribe_batch", {"users": [{"uuid": "1"}, {"uuid": "2"}]}, 2),
        ("mail.send", {"tos": [{}]}, None),
    ],
)
def test_records_are_counted_where_the_body_holds_them(name: str, payload: object, count: int | None) -> None:
    assert BY_NAME[name].count_records(payload) == count
