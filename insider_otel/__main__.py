"""``python -m insider_otel`` is the command ``insider-otel``."""

import sys

from insider_otel.cli import main

if __name__ == "__main__":
    sys.exit(main())
