"""Input that is meant to do harm, or looks like it: files larger than they look, and names that lead elsewhere."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.flows.conftest import ROOT, CommandLine
from tests.flows.tables import query
from tests.long_form import longer
from tests.tasks.conftest import Endpoint, moto_endpoint  # noqa: F401

BOMB_S = longer(600.0, 9_800.0)
BYTES_PER_SECOND = 8 * 48_000 * 4
"""Of a decoded bomb, as floats."""


def write_bomb(path: Path, duration_s: float) -> None:
    """Opus of eight silent channels, one packet over and over: in 27 MB it holds 15 GB of floats."""
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate, stream.options = "7.1", 48_000, {"frame_duration": "60"}
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 2_880), np.int16), format="s16", layout="7.1")
        silence.sample_rate = 48_000
        packets = []
        for number in range(5):
            silence.pts = number * 2_880
            packets += stream.encode(silence)
        content, time_base = bytes(packets[-1]), packets[-1].time_base
        for number in range(int(duration_s / 0.06)):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.duration = stream, time_base or Fraction(1, 48_000), 2_880
            packet.pts = packet.dts = number * 2_880
            container.mux(packet)


_SPLIT = """
    import sys
    from pathlib import Path
    from stt_engine.decode import AudioLimits
    from stt_engine.errors import AudioTooLarge
    from stt_engine.split import SplitOptions, split_audio

    def peak_kb():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

    def split(name, max_duration_s):
        options = SplitOptions(limits=AudioLimits(max_duration_s=max_duration_s))
        splitter = split_audio(Path(name), file_id="f", name=name, options=options)
        try:
            for _ in splitter:
                pass
        except AudioTooLarge as refused:
            print(refused)
        return splitter.info.duration_s

    split("short.opus", 86400)
    before_kb = peak_kb()
    whole_s = split("bomb.opus", 86400)
    cut_s = split("bomb.opus", 100)
    print(whole_s, cut_s, peak_kb() - before_kb)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.timeout(600)
def test_a_small_file_that_holds_gigabytes_is_never_held(tmp_path: Path) -> None:
    """The long form takes the whole 15 GB; else it is a sixteenth of that. The peak must not tell the two."""
    write_bomb(tmp_path / "short.opus", 60.0)
    write_bomb(tmp_path / "bomb.opus", BOMB_S)
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SPLIT)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    refused, figures = ran.stdout.splitlines()
    assert refused.startswith("bomb.opus: is longer than 100 s")
    whole_s, cut_s, grown_kb = map(float, figures.split())
    assert whole_s == pytest.approx(BOMB_S, abs=0.1)
    assert cut_s <= 101.0, "the limit was looked at too late"
    size_bytes = (tmp_path / "bomb.opus").stat().st_size
    print(f"hardening: {size_bytes} bytes of Opus, {whole_s * BYTES_PER_SECOND / 1e9:.2f} GB of floats,"
          f" peak grown by {grown_kb / 1024:.1f} MiB")  # fmt: skip
    assert grown_kb < 30_000


# A line end is in tests/flows/test_bad_input.py: moto does not take it.
KEYS = (
    "../../escape.flac",
    "a/../../../escape.flac",
    "/absolute.flac",
    "//host/share.flac",
    "a//b.flac",
    "./dot.flac",
    "..flac",
    "%2e%2e/%2e%2e/percent.flac",
    "ingest_date=2026-01-01/a=b.flac",
    "tab\tand\x1bescape.flac",
    "nul\0byte.flac",
    "back\\..\\slash.flac",
    "한국어/🎧 \u202egnp.flac",
    "<script>alert(1)</script>.flac",
    "'; DROP TABLE runs; --.flac",
    "long/" + "x" * 1_000 + ".flac",
    "suffix." + "s" * 300,
)
TAKEN = tuple(key for key in KEYS if not any(part.startswith(".") for part in key.split("/")))
"""The others count as hidden, as files and folders with a dot in front do everywhere."""


def test_no_key_leads_out_of_dest(
    prefect_url: str,
    moto_endpoint: Endpoint,  # noqa: F811
    samples: Path,
    tmp_path: Path,
) -> None:
    bucket = f"calls-{uuid.uuid4().hex[:8]}"
    client = moto_endpoint.client()
    client.create_bucket(Bucket=bucket)
    for key in KEYS:
        client.put_object(Bucket=bucket, Key=f"in/{key}", Body=(samples / "en_000.flac").read_bytes())
    place = tmp_path / "a" / "b" / "c"
    dest, scratch = place / "tables", tmp_path / "scratch"
    scratch.mkdir()
    said = CommandLine(prefect_url)(
        "run", f"s3://{bucket}/in", dest, "--model", "fixture", "--device", "cpu", "--backend", "fake",
        "--pattern", "**", "--cpu-workers", "1", "--key-pattern", "(?P<folder>.*)/", "--json",
        **moto_endpoint.environment(), TMPDIR=str(scratch),
    )  # fmt: skip
    assert said.status == 0, said.err
    assert said.json["landed"] == len(TAKEN)
    landed = query("SELECT source_uri, status, text FROM {transcripts}", dest)
    assert {row["source_uri"] for row in landed} == {f"s3://{bucket}/in/{key}" for key in TAKEN}
    assert {row["status"] for row in landed} == {"landed"}
    assert list(tmp_path.rglob("*escape*")) == list(tmp_path.rglob("*.flac")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a", "scratch"}
    assert {path.name for path in place.iterdir()} == {"tables"}
    assert list(scratch.glob("nightscribe*")) == [], "the spool is left behind"
    (page,) = dest.glob("_reports/*.html")
    assert "<script>alert" not in page.read_text()
    assert not Path("/absolute.flac").exists()
