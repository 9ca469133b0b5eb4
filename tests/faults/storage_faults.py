"""What happens to the store while a night runs: each scenario is told every request and may act at that moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.s3_proxy import Fault, Request, Rule, S3Proxy

NAMES = ("en_000", "en_001", "en_002", "ko_000", "ko_001", "ko_002")
TIMEOUT_S = "2"
"""For scenarios in which nothing, or too little, comes."""


@dataclass(slots=True)
class Scene:
    """One source and one destination behind a proxy, both in buckets of their own."""

    proxy: S3Proxy
    client: Any
    """Of the store itself: what it does meets no fault."""
    calls: str
    tables: str
    samples: Path
    expected: dict[str, str] = field(default_factory=dict)
    """Key of what lies in SOURCE at the end -> the sample it is."""

    def put(self, key: str, sample: str) -> None:
        self.client.put_object(Bucket=self.calls, Key=key, Body=(self.samples / f"{sample}.flac").read_bytes())
        self.expected[key] = sample

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.calls, Key=key)
        del self.expected[key]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    begin: Callable[[Scene], None]
    statuses: frozenset[int] = frozenset({0})
    """With which the disturbed run may end."""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def everything_fails(*faults: Fault, probability: float, kinds: tuple[str, ...] = ()) -> Callable[[Scene], None]:
    def begin(scene: Scene) -> None:
        scene.proxy.obey(*(Rule(fault, kinds, probability=probability) for fault in faults))

    return begin


def storm_over_a_changing_source(scene: Scene) -> None:
    """Every fault at once, and a source that changes between the pages of its listing and after it."""
    with ThreadPoolExecutor(16) as threads:  # a whole page that is no audio, between the English and the Korean files
        filler = [f"filler/{number:04d}.txt" for number in range(1000)]
        list(threads.map(lambda key: scene.client.put_object(Bucket=scene.calls, Key=key, Body=b""), filler))
    turned = threading.Event()
    overwritten = threading.Event()

    def before(request: Request) -> None:
        if request.kind == "LIST" and "continuation-token" in request.query and not turned.is_set():
            turned.set()
            scene.remove("en_001.flac")  # listed already
            scene.put("aa_too_late.flac", "en_001")  # the listing has passed its place
            scene.put("zz_just_in_time.flac", "en_001")
        if request.kind == "GET" and request.key.startswith(scene.calls) and not overwritten.is_set():
            overwritten.set()
            scene.put("ko_002.flac", "ko_001")  # an upload that ends after the listing

    scene.proxy.before = before
    often = (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.RESET, Fault.LOST_ANSWER)
    scene.proxy.obey(
        Rule(Fault.LOST_ANSWER, ("PUT",), key="/transcripts/", times=1),
        *(Rule(fault, probability=0.06) for fault in often),
        *(Rule(fault, ("GET",), probability=0.1, times=3) for fault in (Fault.TRUNCATED, Fault.SHORT)),
        Rule(Fault.TRICKLE, ("GET",), probability=0.1, times=1),
        Rule(Fault.STALL, probability=0.02, times=1),
    )


def read_only_after_the_first_part(scene: Scene) -> None:
    parts: set[str] = set()

    def before(request: Request) -> None:
        if request.kind == "PUT" and request.key.startswith(f"{scene.tables}/x/transcripts/"):
            parts.add(request.key)
            if len(parts) == 2:
                scene.proxy.obey(Rule(Fault.REFUSED, ("PUT", "DELETE"), key=f"^{scene.tables}/"))

    scene.proxy.before = before


def outage_of(seconds: float) -> Callable[[Scene], None]:
    """From the first file on the store says 503 to everything, for so long."""

    def begin(scene: Scene) -> None:
        began: list[float] = []

        def before(request: Request) -> None:
            if request.kind == "GET" and request.key.startswith(scene.calls) and not began:
                began.append(time.monotonic())
                scene.proxy.obey(Rule(Fault.SLOW_DOWN))
            elif began and time.monotonic() - began[0] > seconds:
                scene.proxy.obey()

        scene.proxy.before = before

    return begin


def every_first_put_is_doubtful(scene: Scene) -> None:
    scene.proxy.obey(Rule(Fault.LOST_ANSWER, ("PUT",), times_per_key=1))


def books_are_refused(scene: Scene) -> None:
    """Rows may be written, what is said about them may not."""
    scene.proxy.obey(Rule(Fault.REFUSED, ("PUT",), key=r"/_runs/.*\.json$|/_reports/|/_plans/.*\.done$"))


def one_file_never(scene: Scene) -> None:
    scene.proxy.obey(Rule(Fault.SLOW_DOWN, ("GET",), key="en_001"))


SCENARIOS = (
    Scenario(
        "storm over a changing source",
        storm_over_a_changing_source,
        statuses=frozenset({0, 3}),
        environment={"NIGHTSCRIBE_S3_TIMEOUT_S": TIMEOUT_S},
    ),
    Scenario("read-only after the first part", read_only_after_the_first_part, statuses=frozenset({2})),
    Scenario("500 to a third", everything_fails(Fault.INTERNAL_ERROR, probability=0.3)),
    Scenario("503 to half", everything_fails(Fault.SLOW_DOWN, probability=0.5), statuses=frozenset({0, 3})),
    Scenario("resets of a third", everything_fails(Fault.RESET, probability=0.3)),
    Scenario("answers lost of a third", everything_fails(Fault.LOST_ANSWER, probability=0.3)),
    Scenario("answers lost of every first PUT", every_first_put_is_doubtful),
    Scenario("bodies truncated of a third", everything_fails(Fault.TRUNCATED, probability=0.3)),
    Scenario("bodies short of a third", everything_fails(Fault.SHORT, probability=0.3, kinds=("GET", "LIST"))),
    Scenario(
        "silence of a tenth",
        everything_fails(Fault.STALL, probability=0.1),
        environment={"NIGHTSCRIBE_S3_TIMEOUT_S": TIMEOUT_S},
    ),
    Scenario(
        "trickles of a third",
        everything_fails(Fault.TRICKLE, probability=0.3, kinds=("GET", "LIST")),
        environment={"NIGHTSCRIBE_S3_TIMEOUT_S": TIMEOUT_S},
    ),
    Scenario("503 to everything for 20 s", outage_of(20.0), statuses=frozenset({0, 3})),
    Scenario("record, report and mark refused", books_are_refused),
    Scenario("one file never", one_file_never, statuses=frozenset({3}), options=("--retries", "1")),
)
