"""The options of `nightscribe serve`, made of the fields of `ServerSettings`; each is also an STT_ variable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from flows.options import option_for
from stt_engine.server.settings import ServerSettings


def serve_options(command: Callable[[ServerSettings], None]) -> Callable[..., None]:
    """Give a command that takes `ServerSettings` one Typer option for every field."""

    @wraps(command)
    def with_options(**given: Any) -> None:
        command(ServerSettings(**{name: value for name, value in given.items() if value is not None}))

    parameters = [option_for(name, field) for name, field in ServerSettings.model_fields.items()]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options
