"""Where the checkout is, for tests of what it holds."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
