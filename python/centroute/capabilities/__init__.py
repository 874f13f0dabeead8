"""Capabilities: which of thousands of agents or tools fits a query, under a policy."""

from centroute.capabilities.agents import Agent, read_agents
from centroute.capabilities.registry import Capabilities, Match

__all__ = ["Agent", "Capabilities", "Match", "read_agents"]
