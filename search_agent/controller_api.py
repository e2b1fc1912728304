"""The controller API as a text, for whoever writes controllers: a model or a coding agent."""

from pathlib import Path

CONTROLLER_API = (Path(__file__).parent / "controller_api.md").read_text(encoding="utf-8")
