"""Whether the Prefect server that PREFECT_API_URL names answers."""

from __future__ import annotations

import httpx

TIMEOUT_S = 5.0


def no_answer(url: str) -> str | None:
    """Why it does not, in one line; None where it answers, if only to refuse."""
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=TIMEOUT_S)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return f"PREFECT_API_URL {url}: {error}; start it with: prefect server start, or unset the variable"
    return None
