"""How Prefect behaves under our own commands. Must run before Prefect is imported: it reads its settings then."""

from __future__ import annotations

import os


def set_defaults(*, verbose: bool) -> None:
    """Defaults for what the user has not set: a patient start of the embedded server, and a quiet terminal.

    Quiet, since a file that fails is said by the progress bar, and a fault of the run is raised.
    """
    defaults = {
        # It takes 11 to 26 s on a small machine, and Prefect gives up after 20.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
