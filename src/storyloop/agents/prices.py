"""Prices: what tokens cost, by the table that ships with genai-prices. Nothing is fetched."""

from storyloop.agents.profile import Can
from storyloop.agents.profiles import PROFILES
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec
from storyloop.core.usage import Usage


def price(usage: Usage) -> float | None:
    """US dollars for these tokens of their model; None where the model, its price or the library is not there."""
    if usage.model is None:
        return None
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None  # an extra that was not asked for
    held = usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
    tokens = Tokens(
        input_tokens=held,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_creation_tokens,
        output_tokens=usage.output_tokens,
    )
    provider, slash, name = usage.model.partition("/")  # as the agents for many providers write it
    try:
        if slash:
            return float(calc_price(tokens, name, provider_id=provider).total_price)
        return float(calc_price(tokens, usage.model).total_price)
    except LookupError:
        return None


def uncounted(ref: AgentRef, agent: AgentSpec) -> frozenset[str]:
    """Which budgets (`tokens`, `usd`) may not hold this agent: what it does not tell, nobody can count."""
    if agent.profile is None or agent.kind is not AgentKind.PROFILE or Can.USAGE not in PROFILES[agent.profile].can:
        return frozenset({"tokens", "usd"})
    is_priced = Can.COST in PROFILES[agent.profile].can or price(Usage(model=ref.model or agent.model)) is not None
    return frozenset() if is_priced else frozenset({"usd"})
