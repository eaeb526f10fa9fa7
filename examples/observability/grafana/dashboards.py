"""The dashboards as code: python examples/observability/grafana/dashboards.py writes their JSON."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, table, tempo, text, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.text import TextMode

HERE = Path(__file__).parent
FOLDER = HERE / "dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
TEMPO = DataSourceRef(type_val="tempo", uid="tempo")
TAG = "insider-otel"
ALL = VariableOption(text="All", value="$__all", selected=True)

CALLS = "insider_client_call_duration_seconds"
ATTEMPTS = "http_client_request_duration_seconds"
RETRIES = "insider_client_retries_total"
WAITS = "insider_client_wait_duration_seconds"
RECORDS = "insider_client_records_total"
DUPLICATES = "insider_client_duplicates_total"
UTILIZATION = "insider_client_rate_limit_utilization_ratio"
JOBS = "insider_outbox_jobs"
OLDEST = "insider_outbox_oldest_age_seconds"
DELIVERIES = "insider_outbox_deliveries_total"
SPANS = "traces_spanmetrics_latency"

JOB = 'job=~"$job"'
ONE = f'{JOB}, insider_operation="$operation"'


def per_second(counter: str, where: str, by: str) -> str:
    """How many a second, by a label."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, where: str, by: str = "") -> str:
    """The duration that a share of them does not exceed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[$__rate_interval])))"


def quantiles(histogram: str, where: str) -> list[tuple[str, str]]:
    """The durations that half of them, 95 and 99 of 100 do not exceed."""
    return [(quantile(percent / 100, histogram, where), f"p{percent}") for percent in (50, 95, 99)]


def records(where: str, by: str) -> str:
    """How many records there were between two points of the graph."""
    return f"sum by ({by}) (increase({RECORDS}{{{where}}}[$__rate_interval]))"


def graph(title: str, description: str, unit: str, *queries: tuple[str, str], width: int = 8) -> timeseries.Panel:
    """A panel of lines.

    Args:
        title: Its title.
        description: What to read from it.
        unit: Unit of its values, as Grafana names it.
        *queries: PromQL, and what its lines are called.
        width: Of 24.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .fill_opacity(10)
    )
    if any("insider_operation" in legend for _, legend in queries):
        link = "/d/insider-operation?var-operation=${__field.labels.insider_operation}&${__url_time_range}"
        panel.data_links([dashboard.DashboardLink("This operation").url(link)])
    for number, (expression, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        # A point on a histogram leads to a trace that was counted there.
        panel.with_target(query.exemplar("_bucket" in expression).datasource(PROMETHEUS))
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """The same, with its lines on top of each other."""
    return panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)


def traces(title: str, description: str, query: str) -> table.Panel:
    """A list of traces."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(TEMPO)
        .span(24)
        .height(10)
        .with_target(tempo.TempoQuery().query(query).query_type("traceql").limit(20).ref_id("A").datasource(TEMPO))
    )


def board(title: str, uid: str, description: str) -> Dashboard:
    """A dashboard with what all have in common."""
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Insider").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
    )


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable that takes its values from Prometheus."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def job() -> dashboard.QueryVariable:
    """The variable for the app; all by default."""
    return (
        choice("job", "App", f"label_values({CALLS}_count, job)")
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(ALL)
    )


def service() -> dashboard.QueryVariable:
    """The chosen apps by their names in span-metrics, which lack the namespace of a job: ``shop`` for ``web/shop``."""
    derived = choice("service", "Service", f"label_values({CALLS}_count{{{JOB}}}, job)").regex("/^(?:.*\\/)?(.+)$/")
    return derived.multi(True).include_all(True).current(ALL).hide(VariableHide.HIDE_VARIABLE)


def overview() -> Dashboard:
    """How the calls to Insider go, of all operations."""
    failed = f'{JOB}, insider_outcome="failed"'
    near = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    near.steps([Threshold(value=None, color="green"), Threshold(value=0.9, color="red")])
    return (
        board("Insider overview", "insider-overview", "How the calls to Insider go, and whose fault it is.")
        .with_variable(job())
        .with_row(dashboard.Row("Is it them or us?"))
        .with_panel(
            stacked(
                graph(
                    "Calls by outcome",
                    "A call is what the app asked for, with its retries and waits.",
                    "ops",
                    (per_second(f"{CALLS}_count", JOB, "insider_outcome"), "{{insider_outcome}}"),
                )
            )
        )
        .with_panel(
            graph(
                "Failed calls by fault",
                "insider and network: them. caller: us.",
                "ops",
                (per_second(f"{CALLS}_count", failed, "insider_status_fault"), "{{insider_status_fault}}"),
            )
        )
        .with_panel(
            graph(
                "Failed calls by category",
                "What Insider meant; authentication means that a key is refused.",
                "ops",
                (per_second(f"{CALLS}_count", failed, "insider_status_category"), "{{insider_status_category}}"),
            )
        )
        .with_panel(
            graph(
                "Calls by operation",
                "",
                "ops",
                (per_second(f"{CALLS}_count", JOB, "insider_operation"), "{{insider_operation}}"),
                width=12,
            )
        )
        .with_panel(
            graph(
                "Share of calls that failed, by operation",
                "",
                "percentunit",
                (
                    " / ".join(per_second(f"{CALLS}_count", where, "insider_operation") for where in (failed, JOB)),
                    "{{insider_operation}}",
                ),
                width=12,
            )
        )
        .with_row(dashboard.Row("How long it takes"))
        .with_panel(
            graph(
                "Duration of calls",
                "With retries and waits: what the app waited for.",
                "s",
                *quantiles(CALLS, JOB),
            )
        )
        .with_panel(
            graph(
                "Duration of attempts",
                "One HTTP request each: how long Insider takes.",
                "s",
                *quantiles(ATTEMPTS, f'{JOB}, url_template!=""'),
            )
        )
        .with_panel(
            graph(
                "Duration of waits, p95",
                "Planned, by what for.",
                "s",
                (quantile(0.95, WAITS, JOB, "insider_wait_reason"), "{{insider_wait_reason}}"),
            )
        )
        .with_row(dashboard.Row("Retries and limits"))
        .with_panel(
            stacked(
                graph(
                    "Retries",
                    "By what made them necessary.",
                    "ops",
                    (per_second(RETRIES, JOB, "insider_status_category"), "{{insider_status_category}}"),
                )
            )
        )
        .with_panel(
            stacked(
                graph(
                    "Waits",
                    "How often calls wait, and for what.",
                    "ops",
                    (
                        per_second(f"{WAITS}_count", JOB, "insider_wait_reason, insider_wait_source"),
                        "{{insider_wait_reason}}: {{insider_wait_source}}",
                    ),
                )
            )
        )
        .with_panel(
            graph(
                "Use of rate limits",
                "Of each pool, in the window that ends now. Above 90 % calls wait or are refused.",
                "percentunit",
                (f"max by (insider_pool) ({UTILIZATION}{{{JOB}}})", "{{insider_pool}}"),
            ).thresholds(near)
        )
        .with_row(dashboard.Row("What arrived"))
        .with_panel(
            graph(
                "Records that Insider did not take",
                "Also where it answered with a success. The status code does not tell.",
                "short",
                (
                    records(f'{JOB}, insider_records_result="failed"', "insider_operation"),
                    "{{insider_operation}}",
                ),
            )
        )
        .with_panel(
            graph(
                "Records that Insider took",
                "",
                "short",
                (
                    records(f'{JOB}, insider_records_result="accepted"', "insider_operation"),
                    "{{insider_operation}}",
                ),
            )
        )
        .with_panel(
            graph(
                "Duplicates",
                "Insider had it already (server), or the library held it back (local).",
                "ops",
                (per_second(DUPLICATES, JOB, "insider_duplicate_source"), "{{insider_duplicate_source}}"),
            )
        )
        .with_row(dashboard.Row("Deferred calls"))
        .with_panel(
            graph(
                "Calls in the outbox",
                "Those that wait, and those that were given up and that nobody has dealt with.",
                "short",
                (f"max by (job, insider_outbox_job_state) ({JOBS}{{{JOB}}})", "{{job}}: {{insider_outbox_job_state}}"),
            )
        )
        .with_panel(
            graph(
                "Age of the oldest that waits",
                "A few that failed again and again may be old; that all are means that nobody delivers.",
                "s",
                (f"max by (job) ({OLDEST}{{{JOB}}})", "{{job}}"),
            )
        )
        .with_panel(
            stacked(
                graph(
                    "Deliveries by outcome",
                    "deferred: to be tried again. failed: given up.",
                    "ops",
                    (per_second(DELIVERIES, JOB, "insider_outcome"), "{{insider_outcome}}"),
                )
            )
        )
        .with_row(dashboard.Row("Traces"))
        .with_panel(
            traces(
                "Calls that failed or lost records",
                "Whichever page or job they belong to.",
                '{ span.insider.outcome =~ "failed|partly_failed" }',
            )
        )
    )


def operation() -> Dashboard:
    """How the calls of one operation go."""
    failed = f'{ONE}, insider_outcome="failed"'
    # Our own metric of attempts follows the HTTP conventions, which know no operation; the spans do.
    attempts = 'service=~"$service", span_kind="SPAN_KIND_CLIENT", insider_operation="$operation"'
    return (
        board("Insider: one operation", "insider-operation", "One operation of Insider, call by call.")
        .with_variable(job())
        .with_variable(service())
        .with_variable(choice("operation", "Operation", f"label_values({CALLS}_count, insider_operation)"))
        .with_panel(
            stacked(
                graph(
                    "Calls by outcome",
                    "A call is what the app asked for, with its retries and waits.",
                    "ops",
                    (per_second(f"{CALLS}_count", ONE, "insider_outcome"), "{{insider_outcome}}"),
                )
            )
        )
        .with_panel(
            graph(
                "Failed calls",
                "By category and fault.",
                "ops",
                (
                    per_second(f"{CALLS}_count", failed, "insider_status_category, insider_status_fault"),
                    "{{insider_status_category}} ({{insider_status_fault}})",
                ),
            )
        )
        .with_panel(
            graph(
                "Records",
                "What Insider says it took, and did not take.",
                "short",
                (
                    records(ONE, "insider_records_result"),
                    "{{insider_records_result}}",
                ),
            )
        )
        .with_panel(
            graph(
                "Duration of calls",
                "A point leads to its trace.",
                "s",
                *quantiles(CALLS, ONE),
            )
        )
        .with_panel(
            graph(
                "Duration of attempts",
                "From Tempo's span-metrics. A point leads to its trace.",
                "s",
                *quantiles(SPANS, attempts),
            )
        )
        .with_panel(
            graph(
                "Attempts by what they came to",
                "From Tempo's span-metrics.",
                "ops",
                (per_second(f"{SPANS}_count", attempts, "insider_status_category"), "{{insider_status_category}}"),
            )
        )
        .with_panel(
            stacked(
                graph(
                    "Retries",
                    "By what made them necessary.",
                    "ops",
                    (per_second(RETRIES, ONE, "insider_status_category"), "{{insider_status_category}}"),
                    width=12,
                )
            )
        )
        .with_panel(
            graph(
                "Waits, p95",
                "Planned, by what for.",
                "s",
                (quantile(0.95, WAITS, ONE, "insider_wait_reason"), "{{insider_wait_reason}}"),
                width=12,
            )
        )
        .with_panel(
            traces(
                "Calls that failed or lost records",
                "",
                '{ span.insider.operation = "$operation" && span.insider.outcome =~ "failed|partly_failed" }',
            )
        )
    )


def runbook() -> Dashboard:
    """The runbook, where the alerts lead to."""
    page = (HERE.parent / "runbook.md").read_text("utf-8")
    panel = text.Panel().title("").mode(TextMode.MARKDOWN).content(page).span(24).height(40)
    return board("Insider runbook", "insider-runbook", "What to do when an alert comes.").with_panel(panel)


def render() -> dict[str, str]:
    """The JSON of each dashboard by the name of its file."""
    built = {f"{each.__name__}.json": each().build() for each in (overview, operation, runbook)}
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(model) + "\n" for name, model in built.items()}


if __name__ == "__main__":
    for name, content in render().items():
        (FOLDER / name).write_text(content, "utf-8")
