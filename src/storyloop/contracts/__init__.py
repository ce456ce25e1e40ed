"""Contracts: what is promised to agents and asked of them: schemas, their codec, and the prompts."""
