"""The controller API as a text, for whoever writes controllers: a model's prompt or a coding agent's folder."""

from pathlib import Path

CONTROLLER_API = (Path(__file__).parent / "controller_api.md").read_text(encoding="utf-8")
