"""What a shop's calls leave in Prometheus: the same facts as series of our own metrics, and as Tempo's span-metrics."""

from __future__ import annotations

from dataclasses import dataclass

Series = dict[str, str]
"""Values in promtool's notation, by series."""

UPSERT, MAIL = "user.upsert", "mail.send"


@dataclass(frozen=True)
class Calls:
    """Calls that ended in one way.

    Attributes:
        values: How many had, minute by minute.
    """

    values: str
    outcome: str = "succeeded"
    category: str = "success"
    fault: str = "none"
    operation: str = UPSERT

    def metrics(self) -> Series:
        """As our own metrics."""
        labels = (
            f'insider_operation="{self.operation}", insider_outcome="{self.outcome}", '
            f'insider_status_category="{self.category}", insider_status_fault="{self.fault}"'
        )
        return {f'insider_client_call_duration_seconds_count{{job="shop", instance="a", {labels}}}': self.values}

    def spans(self) -> Series:
        """As span-metrics."""
        labels = (
            f'insider_operation="{self.operation}", insider_outcome="{self.outcome}", '
            f'insider_status_category="{self.category}", insider_status_fault="{self.fault}"'
        )
        span = f'service="shop", span_name="insider {self.operation}", span_kind="SPAN_KIND_INTERNAL"'
        return {f"traces_spanmetrics_calls_total{{{span}, {labels}}}": self.values}


@dataclass(frozen=True)
class Retries:
    """Attempts that were made because of another, which ended in the same way.

    Attributes:
        values: How many had been made, minute by minute.
        job: The app that made them.
    """

    values: str
    category: str = "unavailable"
    operation: str = UPSERT
    job: str = "shop"

    def metrics(self) -> Series:
        """As our own metrics."""
        labels = f'insider_operation="{self.operation}", insider_status_category="{self.category}"'
        return {f'insider_client_retries_total{{job="{self.job}", instance="a", {labels}}}': self.values}

    def spans(self) -> Series:
        """As span-metrics."""
        labels = f'insider_operation="{self.operation}", insider_status_category="{self.category}"'
        span = f'service="{self.job}", span_name="POST /path", span_kind="SPAN_KIND_CLIENT"'
        return {f'traces_spanmetrics_calls_total{{{span}, {labels}, http_request_resend_count="1"}}': self.values}


@dataclass(frozen=True)
class Waits:
    """Waits within calls.

    Attributes:
        short: How many had been of half a second at most, minute by minute.
        page: How many of ten seconds at most.
    """

    short: str
    page: str

    def metrics(self) -> Series:
        """As our own metrics; Prometheus has bounds with and without a decimal, depending on who sent them."""
        name = f'insider_client_wait_duration_seconds_bucket{{job="shop", insider_operation="{UPSERT}", le='
        return {f'{name}"0.5"}}': self.short, f'{name}"10"}}': self.page}

    def spans(self) -> Series:
        """As span-metrics."""
        span = f'service="shop", span_name="insider wait", insider_operation="{UPSERT}"'
        name = f"traces_spanmetrics_latency_bucket{{{span}, le="
        return {f'{name}"0.5"}}': self.short, f'{name}"10.0"}}': self.page}


@dataclass(frozen=True)
class Pool:
    """A rate limit.

    Attributes:
        values: The share of it that is used, minute by minute.
        name: Its name.
    """

    values: str
    name: str = UPSERT

    def metrics(self) -> Series:
        """As our own metrics."""
        return {f'insider_client_rate_limit_utilization_ratio{{job="shop", insider_pool="{self.name}"}}': self.values}

    def spans(self) -> Series:
        """No span knows it."""
        return {}


@dataclass(frozen=True)
class Outbox:
    """An outbox.

    Attributes:
        waiting: How many calls wait in it, minute by minute.
        oldest: For how many seconds the oldest has waited.
    """

    waiting: str
    oldest: str

    def metrics(self) -> Series:
        """As our own metrics: two processes share the outbox, and each tells of all of it."""
        series: Series = {}
        for instance in ("a", "b"):
            labels = f'job="shop", instance="{instance}"'
            series[f'insider_outbox_jobs{{{labels}, insider_outbox_job_state="waiting"}}'] = self.waiting
            series[f"insider_outbox_oldest_age_seconds{{{labels}}}"] = self.oldest
        return series

    def spans(self) -> Series:
        """No span knows it."""
        return {}


@dataclass(frozen=True)
class Deliveries:
    """Deliveries of deferred calls that ended in one way.

    Attributes:
        values: How many had, minute by minute.
        job: The app that made them.
        instance: The process of it.
    """

    values: str
    outcome: str
    category: str = "unavailable"
    fault: str = "insider"
    operation: str = UPSERT
    job: str = "shop"
    instance: str = "a"

    def metrics(self) -> Series:
        """As our own metrics."""
        app = f'job="{self.job}", instance="{self.instance}"'
        return {f"insider_outbox_deliveries_total{{{app}, {self._labels()}}}": self.values}

    def spans(self) -> Series:
        """As span-metrics."""
        app = f'service="{self.job}", instance="{self.instance}"'
        span = f'{app}, span_name="insider deliver {self.operation}", span_kind="SPAN_KIND_INTERNAL"'
        return {f"traces_spanmetrics_calls_total{{{span}, {self._labels()}}}": self.values}

    def _labels(self) -> str:
        return (
            f'insider_operation="{self.operation}", insider_outcome="{self.outcome}", '
            f'insider_status_category="{self.category}", insider_status_fault="{self.fault}"'
        )


Fact = Calls | Retries | Waits | Pool | Outbox | Deliveries
