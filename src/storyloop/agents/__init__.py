"""Agents: whoever can be asked for work, spoken to through one port."""
