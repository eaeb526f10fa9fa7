"""The names of everything exported; the telemetry contract in one place."""

from __future__ import annotations

from typing import Final

# Call, attempt and wait spans.
OPERATION: Final = "insider.operation"
PRODUCT: Final = "insider.product"

# Call and attempt spans.
STATUS_CATEGORY: Final = "insider.status.category"
STATUS_RULE: Final = "insider.status.rule"
STATUS_FAULT: Final = "insider.status.fault"
STATUS_RETRY: Final = "insider.status.retry"

# Call spans.
OUTCOME: Final = "insider.outcome"
ATTEMPTS: Final = "insider.attempts"
WAIT_MS: Final = "insider.wait.ms"
RECORDS_SENT: Final = "insider.records.sent"
RECORDS_ACCEPTED: Final = "insider.records.accepted"
RECORDS_FAILED: Final = "insider.records.failed"
RETRY_STOPPED: Final = "insider.retry.stopped"
JOB: Final = "insider.outbox.job.id"
ERROR_TYPE: Final = "error.type"

# Wait spans.
WAIT_REASON: Final = "insider.wait.reason"
WAIT_SOURCE: Final = "insider.wait.source"

# Attempt spans: stable HTTP semantic conventions.
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_RESPONSE_CF_RAY: Final = "http.response.header.cf-ray"
URL_FULL: Final = "url.full"
URL_TEMPLATE: Final = "url.template"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PEER_PORT: Final = "network.peer.port"
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"

# The summary on the server span.
REQUEST_CALLS: Final = "insider.request.calls"
REQUEST_FAILED_CALLS: Final = "insider.request.failed_calls"
REQUEST_RETRIES: Final = "insider.request.retries"
REQUEST_DUPLICATES: Final = "insider.request.duplicates"
REQUEST_RATE_LIMITED: Final = "insider.request.rate_limited"
REQUEST_DEFERRED: Final = "insider.request.deferred"
REQUEST_WAIT_MS: Final = "insider.request.wait_ms"

# Events on the call span.
EVENT_RETRY_SCHEDULED: Final = "insider.retry.scheduled"
EVENT_RETRY_STOPPED: Final = "insider.retry.stopped"
EVENT_RATE_LIMIT_WAITED: Final = "insider.rate_limit.waited"
EVENT_RATE_LIMIT_REFUSED: Final = "insider.rate_limit.refused"
EVENT_RATE_LIMIT_HIT: Final = "insider.rate_limit.hit"
EVENT_HELD_BACK: Final = "insider.dedupe.held_back"
EVENT_IN_FLIGHT: Final = "insider.dedupe.in_flight"
EVENT_SERVER_DUPLICATE: Final = "insider.dedupe.server_duplicate"
EVENT_DEFERRED: Final = "insider.deferred"
EVENT_STORE_UNAVAILABLE: Final = "insider.state.unavailable"

# Attributes of events alone.
DEDUPE_AGE_MS: Final = "insider.dedupe.age.ms"
STORE: Final = "insider.state.store"

# Metrics.
METRIC_REQUEST_DURATION: Final = "http.client.request.duration"
METRIC_CALL_DURATION: Final = "insider.client.call.duration"
METRIC_RETRIES: Final = "insider.client.retries"
METRIC_WAIT_DURATION: Final = "insider.client.wait.duration"
METRIC_DUPLICATES: Final = "insider.client.duplicates"
METRIC_RECORDS: Final = "insider.client.records"
METRIC_UTILIZATION: Final = "insider.client.rate_limit.utilization"
METRIC_DELIVERIES: Final = "insider.outbox.deliveries"
METRIC_JOBS: Final = "insider.outbox.jobs"
METRIC_OLDEST_AGE: Final = "insider.outbox.oldest.age"

# Labels that only metrics carry.
RECORDS_RESULT: Final = "insider.records.result"
DUPLICATE_SOURCE: Final = "insider.duplicate.source"
POOL: Final = "insider.pool"
JOB_STATE: Final = "insider.outbox.job.state"
