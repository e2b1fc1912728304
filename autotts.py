"""The face of AutoTTS."""


def main() -> int:
    """Run the `autotts` command."""
    raise SystemExit("autotts: no sub-commands yet")
