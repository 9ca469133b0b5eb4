"""The options of `nightscribe run`, made of the fields of `RunSettings`: one description for all doors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic_settings import SettingsError

from stt_engine.errors import UsageError
from tasks.settings import AdvancedSettings, RunSettings

_ARGUMENTS = ("source", "dest")
_COMMAND_ONLY = ("dry_run", "json", "verbose")


@dataclass(frozen=True, slots=True)
class RunOptions:
    settings: RunSettings
    dry_run: bool
    json: bool
    verbose: bool


def run_options(command: Callable[[RunOptions], None]) -> Callable[..., None]:
    """Give a command that takes `RunOptions` one Typer option for every setting.

    What is not given is left to the environment and then to the default, as `RunSettings` reads them.
    """

    @wraps(command)
    def with_options(**given: Any) -> None:
        own = {name: given.pop(name) for name in _COMMAND_ONLY}
        advanced = {name: given.pop(name) for name in AdvancedSettings.model_fields}
        values = {name: value for name, value in given.items() if value not in (None, [])}
        if changed := {name: value for name, value in advanced.items() if value is not None}:
            values["advanced"] = changed
        try:
            chosen = RunSettings(**values)
        except SettingsError as error:  # a variable that should hold JSON and does not
            raise UsageError(f"{error} (NIGHTSCRIBE_... in the environment): {error.__cause__}") from error
        command(RunOptions(settings=chosen, **own))

    parameters = [
        option_for(name, RunSettings.model_fields[name]) for name in RunSettings.model_fields if name != "advanced"
    ]
    parameters += [
        option_for(name, AdvancedSettings.model_fields[name], panel="Advanced")
        for name in AdvancedSettings.model_fields
    ]
    parameters += [
        _flag("dry_run", "Only list what would be done, with estimated hours and cost."),
        _flag("json", "Print one JSON object last on stdout."),
        _flag("verbose", "Every log line of the run on stderr."),
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def option_for(name: str, field: Any, panel: str | None = None) -> inspect.Parameter:
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown = "" if default in (None, (), False) or field.is_required() else f" (default: {default})"
    choices = [str(choice) for choice in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    choices = [choice for choice in choices if choice != "fake"]
    listed = f" One of {', '.join(choices)}." if choices else ""
    described = f"{field.description}{listed}{shown}"
    if name in _ARGUMENTS:
        kind: Any = Annotated[
            str,
            typer.Argument(
                metavar=name.upper(), envvar=f"NIGHTSCRIBE_{name.upper()}", help=described, show_default=False
            ),
        ]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    flag = "--" + name.replace("_", "-")
    plain = _plain_type(field.annotation)
    declared = f"{flag}/--no-{flag[2:]}" if plain is bool else flag
    variables = [f"NIGHTSCRIBE_{name.upper()}"]
    if panel:  # the second is the name by which a worker's environment reaches the flow's own settings
        variables.append(f"NIGHTSCRIBE_ADVANCED__{name.upper()}")
    option = typer.Option(
        declared,
        help=described if name != "pattern" else f"{described} [env var: {variables[0]}, one or a JSON list]",
        envvar=None if name == "pattern" else variables,  # Typer would split it at spaces
        show_default=False,
        rich_help_panel=panel,
    )
    wanted = list[str] | None if name == "pattern" else plain | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[wanted, option])


def _flag(name: str, described: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    option = typer.Option(flag, envvar=f"NIGHTSCRIBE_{name.upper()}", show_envvar=False, help=described)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])


def _plain_type(annotation: Any) -> type:
    """What Typer parses; everything finer (choices, bounds, dates) is checked by the settings, with their messages."""
    kinds = {annotation, *get_args(annotation)}
    for kind in (bool, int, float):
        if kind in kinds:
            return kind
    return str
