"""Checks an installed insider-otel from outside of the checkout; no tool or extra is installed beside it."""

from importlib.metadata import entry_points, files
from importlib.resources import files as resources
from importlib.util import find_spec
from pathlib import Path

import insider_otel
from insider_otel.api.operations import operations
from insider_otel.api.responses import responses

assert "site-packages" in Path(insider_otel.__file__).parts, insider_otel.__file__
for extra in ("opentelemetry.sdk", "jinja2", "pytest", "redis", "rich", "uvicorn", "httpx2"):
    assert find_spec(extra.partition(".")[0]) is None or find_spec(extra) is None, f"{extra} is a hidden dependency"

shipped = {str(file) for file in files("insider-otel") or ()}
assert "insider_otel/py.typed" in shipped
assert {"insider_otel/state/store.lua", "insider_otel/state/window.lua"} <= shipped
assert {f"insider_otel/cli/demo/page/report.{kind}" for kind in ("css", "html")} <= shipped
assert any(file.endswith("licenses/LICENSE") for file in shipped)
assert not [file for file in shipped if file.startswith(("tests/", "benchmarks/", "semconv/"))]
assert resources("insider_otel").joinpath("py.typed").is_file()

assert len(operations()) > 50
assert len(responses()) > 90
assert insider_otel.classify(429, b'{"error": "rejected: too many requests"}').category == "rate_limit"

(instrumentor,) = entry_points(group="opentelemetry_instrumentor", name="insider")
instrumentor.load()().instrument()
instrumentor.load()().uninstrument()
assert entry_points(group="pytest11", name="insider_otel")
print(f"insider-otel {insider_otel.__version__}: imports, data files and entry points are in place")
