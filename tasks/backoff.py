"""How a storage call is tried again: few times, further and further apart, never in step with others.

Only `StorageUnavailable` is tried again. The waits have full jitter (Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015), and the libraries below are told not to retry on their own: retries inside retries multiply
the requests of a store that has just asked for fewer.

What the store has answered to one call counts for the next (`Pressure`): otherwise each of ten thousand files would
begin with a burst of its own, and a store that asks for less would never get it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from stt_engine.errors import NightscribeError, StorageUnavailable
from stt_engine.types import Seconds

log = logging.getLogger(__name__)

ATTEMPTS = 8
FEWEST_ATTEMPTS = 4
"""Of a call that begins while nothing succeeds: they lie so far apart that more would only take longer."""
GIVE_UP_AFTER_S = 180.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 20.0

Answer = TypeVar("Answer")


class Pressure:
    """How many calls of this process have lately failed in a row, whichever thread made them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed = 0

    def failed(self) -> None:
        with self._lock:
            self._failed = min(self._failed + 1, ATTEMPTS)

    def succeeded(self) -> None:
        """Half of it goes: one answer among many refusals is no reason to begin again at full speed."""
        with self._lock:
            self._failed //= 2

    @property
    def level(self) -> int:
        """0 while all is well, ATTEMPTS at most."""
        return self._failed


_pressure = Pressure()


def with_backoff(call: Callable[[], Answer]) -> Answer:
    """What `call` returns; it is called up to `ATTEMPTS` times while it raises StorageUnavailable.

    Under pressure fewer times, and the first one waits too: a new call goes on where the failed ones have stopped.

    Raises: what the last call raised.
    """
    pressure, began_s = _pressure, time.monotonic()
    attempts = ATTEMPTS - pressure.level * (ATTEMPTS - FEWEST_ATTEMPTS) // ATTEMPTS
    if pressure.level:
        time.sleep(_wait_s(pressure.level))
    attempt = 1
    while True:
        try:
            answer = call()
        except StorageUnavailable as error:
            pressure.failed()
            wait_s = _wait_s(max(attempt, pressure.level))
            if attempt >= attempts or time.monotonic() - began_s >= GIVE_UP_AFTER_S:
                raise
            log.info("trying again in %.1f s (attempt %d of %d): %s", wait_s, attempt, attempts, error)
        except NightscribeError:
            pressure.succeeded()  # "no" is an answer too
            raise
        else:
            pressure.succeeded()
            return answer
        time.sleep(wait_s)
        attempt += 1


def _wait_s(failures: int) -> Seconds:
    return random.uniform(0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1)))
