"""``python -m semconv`` writes the page."""

from semconv.page import PAGE, page
from semconv.registry import Registry

if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(Registry.read()), "utf-8")
