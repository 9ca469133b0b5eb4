"""A night in a process of its own, so that a test may end it, or take rights from it.

    python -m tests.flows.night_process '{"source": ..., "dest": ..., "deny": true, "on_plan": {"delete": [...], ...}}'

The last line on stdout is the summary in JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

_DROP_FROM_BOUNDING_SET = 24
_CAPABILITIES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which root reads what nobody may."""


def deny_like_a_user() -> None:
    """The workers that this process will start obey file permissions even where it runs as root."""
    for capability in _CAPABILITIES:
        ctypes.CDLL(None).prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def main(wish: dict[str, Any]) -> None:
    from flows.transcribe_new_audio import transcribe_new_audio
    from tasks.announce import Event, listening
    from tasks.settings import AdvancedSettings
    from tasks.types import NightPlan

    on_plan: dict[str, list[str]] = wish.pop("on_plan", {})
    if wish.pop("deny", False):
        deny_like_a_user()

    def hear(event: Event) -> None:
        if isinstance(event, NightPlan):
            for path in on_plan.get("delete", []):
                Path(path).unlink()
            for path in on_plan.get("append", []):
                with Path(path).open("ab") as file:
                    file.write(bytes(32_000))

    usual: dict[str, Any] = {"model": "fixture", "device": "cpu", "cpu_workers": 1}
    wish["advanced"] = AdvancedSettings(**{"retry_delay_s": 0.0} | wish.get("advanced", {}))
    with listening(hear):
        state = transcribe_new_audio(**usual | wish, return_state=True)
    told = {"state": state.name, "flow_run_id": str(state.state_details.flow_run_id)}
    print(json.dumps(told | asdict(state.result(raise_on_failure=False))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
