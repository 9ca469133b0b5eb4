"""How options look in the Prefect form: bounds that the form checks before it submits, taken from the settings.

Descriptions come from the flows' docstrings, selects from `Literal`, pickers from dates; Prefect makes the rest.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"
TIME_OF_DAY_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"
URI_PATTERN = (
    r"^(?![\s\S]*(?<!abfs)(?<!abfss)(?<!az)://[^/]*@)"
    r"(?![\s\S]*[?&](X-Amz-|AWSAccessKeyId=|sig=|[Ss]ignature=|\w*[Tt]oken=|\w*[Kk]ey=|[Pp]assword=|\w*[Ss]ecret))"
    r"[\s\S]*$"
)
"""Of the schema alone, so that what holds a secret is refused before Prefect writes it down with the run's parameters,
and without a Pydantic error, which would repeat it. The run itself looks closer: `tasks.addresses`."""

SCHEDULER_PATTERN = r"^(tcp|tls|ws|wss|ucx)://[^@/\s]+:\d+$"

Device = Annotated[str, Field(pattern=DEVICE_PATTERN)]
Uri = Annotated[str, Field(min_length=1), WithJsonSchema({"type": "string", "minLength": 1, "pattern": URI_PATTERN})]
ExactUri = Annotated[str, Field(min_length=1)]
"""Of a recording that is in the tables, as it stands there."""
Scheduler = Annotated[str, Field(pattern=SCHEDULER_PATTERN)]
TimeOfDay = Annotated[str, Field(pattern=TIME_OF_DAY_PATTERN)]
Hint = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=1)]
GpuWorkers = Annotated[int, Field(ge=1, le=16)]
CpuWorkers = Annotated[int, Field(ge=1, le=256)]
Settling = Annotated[float, Field(ge=0)]
TargetBytes = Annotated[int, Field(ge=1_000, le=2_000_000_000)]
