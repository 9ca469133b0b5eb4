"""No secret is written anywhere: a run that has many, over libraries that tell them all, and then a look at every byte.

The telling is done by `tests/faults/poison/sitecustomize.py`; the store is moto's, which takes any key for right.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest

from tests.faults.test_poison import HOOK
from tests.flows.conftest import ROOT, CommandLine, asking
from tests.flows.test_run_command import _REFUSALS
from tests.tasks.conftest import Endpoint, moto_endpoint  # noqa: F401


def unique(name: str) -> str:
    """With the letters that a secret key of AWS may have, and a URL may not."""
    return f"{name}+{uuid.uuid4().hex}/x"


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """By the variable of the environment that holds it."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "PREFECT_API_KEY",
             "NIGHTSCRIBE_API_KEY", "AZURE_STORAGE_CONNECTION_STRING")  # fmt: skip
    return {name: unique(name.lower().replace("_", "")) for name in names} | {
        names[0]: f"AKIA{uuid.uuid4().hex.upper()}"
    }


@pytest.fixture
def store(moto_endpoint: Endpoint, secrets: dict[str, str], samples: Path) -> str:  # noqa: F811
    """A bucket with four recordings, three of them bound for trouble."""
    bucket = f"calls-{uuid.uuid4().hex[:8]}"
    client = _client(moto_endpoint, secrets)
    client.create_bucket(Bucket=bucket)
    for name in ("plain", "cpu-leak", "gpu-leak", "letter"):
        content = b"Dear customer" if name == "letter" else (samples / "en_000.flac").read_bytes()
        client.put_object(Bucket=bucket, Key=f"calls/{name}.flac", Body=content)
    return bucket


def _client(endpoint: Endpoint, secrets: dict[str, str]) -> boto3.client:
    return boto3.client(
        "s3", endpoint_url=endpoint.url, region_name="us-east-1",
        aws_access_key_id=secrets["AWS_ACCESS_KEY_ID"], aws_secret_access_key=secrets["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=secrets["AWS_SESSION_TOKEN"],
    )  # fmt: skip


def found_in(text: bytes, secrets: list[str]) -> set[str]:
    """As they are, as they stand in URLs, and in JSON."""
    forms = {secret: {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]} for secret in secrets}
    return {secret for secret, written in forms.items() if any(form.encode() in text for form in written)}


def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of the server that the tests of this process share, with what is not yet in its place."""
    files = [path for path in tmp_path_factory.getbasetemp().glob("prefect*/*.db*") if path.is_file()]
    assert files, "where is the database?"
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.timeout(180)
def test_a_run_with_talkative_libraries_writes_no_secret(
    prefect_url: str,
    moto_endpoint: Endpoint,  # noqa: F811
    store: str,
    secrets: dict[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    header, signature, password = unique("header"), unique("signature"), unique("password").replace("/", "")
    (tmp_path / "fsspec").mkdir()
    options = {"https": {"client_kwargs": {"headers": {"Authorization": header}}}}
    (tmp_path / "fsspec" / "site.json").write_text(json.dumps(options))
    told = [
        *secrets.values(),
        header,
        f"https://cdn/a?X-Amz-Signature={quote(signature)}&x=1",
        f"s3://kim:{password}@b/",
    ]
    said = CommandLine(prefect_url)(
        "run", f"s3://{store}/calls", f"s3://{store}/tables", "--model", "fixture", "--device", "cpu", "--verbose",
        "--cpu-workers", "1", "--retries", "0", "--json",
        **secrets, AWS_ENDPOINT_URL=moto_endpoint.url, AWS_DEFAULT_REGION="us-east-1",
        FSSPEC_CONFIG_DIR=str(tmp_path / "fsspec"), PYTHONPATH=f"{HOOK}:{ROOT}",
        POISON_JOURNAL=str(tmp_path / "journal"), POISON_SECRETS=" ".join(told),
    )  # fmt: skip
    assert said.status == 3, said.err
    assert [said.json[name] for name in ("landed", "failed_terminal", "failed_retryable")] == [1, 2, 1]
    client = _client(moto_endpoint, secrets)
    objects = {
        entry["Key"]: client.get_object(Bucket=store, Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket=store)["Contents"]
    }
    kinds = {key.split("/")[1] for key in objects if key.startswith("tables/")}
    assert {"transcripts", "_plans", "_runs", "_reports"} <= kinds
    written = {
        "stdout": said.out.encode(),
        "stderr": said.err.encode(),
        "Prefect": database(tmp_path_factory),
        **objects,
    }
    for place in ("stderr", "Prefect", next(key for key in objects if "/_runs/" in key)):
        assert b"no answer from [secret]" in written[place], f"{place}: nobody has told it anything"
    assert b"sent the header [secret]" in written["stderr"]
    assert b"X-Amz-Signature=[secret]" in written["stderr"] and b"s3://[secret]@b/" in written["stderr"]
    hidden = [*secrets.values(), header, signature, password]
    leaks = {place: found for place, content in written.items() if (found := found_in(content, hidden))}
    assert leaks == {}
    print(f"secrets: {len(hidden)} looked for in {sum(map(len, written.values()))} bytes at {len(written)} places")


def test_an_address_with_a_secret_is_written_nowhere(
    prefect_url: str, samples: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.transcribe_new_audio import transcribe_new_audio

    secret = uuid.uuid4().hex
    addresses = [f"https://kim:{secret}@host/", f"s3://AKIA:ab/{secret}@bucket/x", f"s3://b/x?X-Amz-Signature={secret}"]
    asked = [[address, str(tmp_path / "tables")] for address in addresses]
    asked += [[str(samples), address] for address in addresses]
    asked += [[str(samples), str(tmp_path / "tables"), "--spool", address] for address in addresses]
    answered = subprocess.run(
        [sys.executable, "-c", _REFUSALS, json.dumps([[*words, "--model", "fixture"] for words in asked])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for status, out, err, prefect_started in json.loads(answered.stdout):
        assert (status, out, prefect_started) == (2, "", False)
        assert err.rstrip().endswith("give it in the environment")
        assert secret not in err

    async def submit(source: str) -> None:
        deployment = await transcribe_new_audio.ato_deployment("secrets")
        async with get_client() as client:
            found = await client.create_flow(transcribe_new_audio)
            made = await client.create_deployment(
                found, "secrets", parameter_openapi_schema=deployment._parameter_openapi_schema.model_dump(),
                enforce_parameter_schema=True,
            )  # fmt: skip
            await client.create_flow_run_from_deployment(made, parameters={"source": source, "dest": "/tables"})

    for address in addresses[:1] + addresses[2:]:
        with asking(prefect_url), pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
            asyncio.run(submit(address))
    with asking(prefect_url):
        asyncio.run(submit("s3://calls/2026/who? me@home"))
    assert secret.encode() not in database(tmp_path_factory)
    assert b"who? me@home" in database(tmp_path_factory), "nothing would have been found there"
