"""Assembles controllers from a small grammar of mechanisms; needs no model and no key."""

from search_agent.compose.proposer import ComposeProposer

__all__ = ["ComposeProposer"]
