"""What a model's answer costs: stated by the user, free on their own server, or from a price table.

The table is that of ``genai-prices``, as installed; nothing is fetched.
"""

from dataclasses import dataclass

from autopilot_agents.llm.settings import Settings

_MILLION = 1e6


@dataclass(frozen=True)
class Tokens:
    """What a model read and wrote; ``cached`` is part of ``read``."""

    read: int = 0
    cached: int = 0
    written: int = 0


def price(tokens: Tokens, settings: Settings) -> float | None:
    """Dollars for so many tokens; None where nobody knows.

    Stated prices apply to cached tokens in full: it is never more than that.
    """
    stated = settings.price_in, settings.price_out
    if stated[0] is not None and stated[1] is not None:
        return (tokens.read * stated[0] + tokens.written * stated[1]) / _MILLION
    if settings.own_server:
        return 0.0
    return _listed(tokens, settings)


def is_free(settings: Settings) -> bool:
    """Asking costs no money, so no budget of money can be used up by it."""
    return price(Tokens(read=1_000_000, written=1_000_000), settings) == 0


def _listed(tokens: Tokens, settings: Settings) -> float | None:
    from genai_prices import Usage, calc_price

    usage = Usage(
        input_tokens=tokens.read,
        cache_read_tokens=tokens.cached,
        output_tokens=tokens.written,
    )
    try:
        if settings.vendor is not None:
            vendor = settings.vendor.replace("_genai", "")
            found = calc_price(usage, settings.model_name, provider_id=vendor)
        else:
            found = calc_price(usage, settings.model_name, provider_api_url=settings.url)
    except (LookupError, ValueError):
        return None
    return float(found.total_price)
