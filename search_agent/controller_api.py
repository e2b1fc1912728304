"""The controller API as a text, for whoever writes controllers: a model or a coding agent."""

from importlib.resources import files

CONTROLLER_API = (files("controllers") / "api.md").read_text(encoding="utf-8")
