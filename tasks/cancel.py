"""The cancel button of the Prefect UI, for runs that no Prefect worker could end from outside."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException

from stt_engine.types import Seconds

log = logging.getLogger(__name__)

EVERY_S: Seconds = 5.0


class CancelWatch:
    """Looks at the state of the flow run that this is opened in, every few seconds, in a thread of its own.

    A run that a process worker started is ended by it with SIGTERM, and 30 s later with SIGKILL; one started from a
    command line would show Cancelling for ever.
    """

    def __init__(self) -> None:
        self._every_s = EVERY_S
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._flow_run_id = UUID(runtime.flow_run.id)
        # In a copy of this context, where Prefect keeps its settings, so that both ask the same server.
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._watch,), name="cancel-watch", daemon=True)

    def is_wanted(self) -> bool:
        return self._wanted.is_set()

    def look(self) -> bool:
        """Whether it is wanted at this moment, by the server's word."""
        with get_client(sync_client=True) as client:
            return self.is_wanted() or self._ask(client)

    def _watch(self) -> None:
        with get_client(sync_client=True) as client:
            while not self._over.wait(self._every_s):
                if self._ask(client):
                    self._wanted.set()
                    return

    def _ask(self, client: SyncPrefectClient) -> bool:
        try:
            state = client.read_flow_run(self._flow_run_id).state
        except (httpx.HTTPError, PrefectException) as error:
            # The server may be down for a while; the night goes on without it.
            log.warning("cannot ask the Prefect server whether this run is cancelled: %s", error)
            return False
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=2 * self._every_s)
