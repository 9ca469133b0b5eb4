"""What pyproject.toml promises: every package and its files listed, every dependency pinned, set-up without pip."""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import re
import subprocess
import sys
import threading
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
sys.path.insert(0, str(ROOT / "scripts"))

import pip_wheel  # noqa: E402


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {str(canonicalize_name(name)): version for name, version in (line.split("==") for line in lines)}


def wanted(requirements: list[str], extras: set[str]) -> Iterator[str]:
    """Names of everything that requirements draw in, as installed here."""
    todo = [(Requirement(text), extras) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, active = todo.pop()
        markers = requirement.marker
        if markers and not any(markers.evaluate({"extra": extra}) for extra in active | {""}):
            continue
        key = (str(canonicalize_name(requirement.name)), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        found: Distribution = distribution(requirement.name)
        todo += [(Requirement(text), set(requirement.extras)) for text in found.requires or []]


def test_every_package_and_its_files_are_listed() -> None:
    rooms = ("flows", "stt_engine", "tasks")
    here = {".".join(path.parent.relative_to(ROOT).parts) for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == here
    data = PROJECT["tool"]["setuptools"]["package-data"]
    shipped = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {
        path
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert shipped == others


def test_every_dependency_is_pinned_to_what_is_installed() -> None:
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    requirements = [text for text in [*project["dependencies"], *extras] if not text.startswith("nightscribe[")]
    pinned = pins()
    names = set(wanted(requirements, set()))
    assert names - set(pinned) == set()
    build = re.compile(r"\+.*$")  # torch's CPU build calls itself 2.13.0+cpu
    installed = {name: build.sub("", distribution(name).version) for name in names}
    # Constrained by the CUDA build of torch, which the CPU build does not ask for.
    installed.pop("triton", None)
    assert {name: version for name, version in installed.items() if pinned[name] != version} == {}


def test_every_import_is_declared() -> None:
    project = PROJECT["project"]
    optional = project["optional-dependencies"]
    declared = {
        module
        for text in [*project["dependencies"], *optional["transformers"], *optional["openai"], *optional["dask"]]
        for module in modules_of(Requirement(text).name)
    }
    imported: dict[str, Path] = {}
    for room in ("flows", "stt_engine", "tasks"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0]: path for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported[node.module.split(".")[0]] = path
    ours = {"flows", "stt_engine", "tasks", *sys.stdlib_module_names}
    assert {name: str(path) for name, path in imported.items() if name not in declared | ours} == {}


@functools.cache
def installed_modules() -> dict[str, list[str]]:
    """Top-level modules and whose they are. It takes half a second to find out."""
    return dict(packages_distributions())


def modules_of(name: str) -> set[str]:
    """The top-level modules that a distribution installs."""
    wanted_name = canonicalize_name(name)
    return {
        module
        for module, owners in installed_modules().items()
        if wanted_name in {canonicalize_name(owner) for owner in owners}
    }


def test_base_install_draws_in_no_torch() -> None:
    names = set(wanted(PROJECT["project"]["dependencies"], set()))
    assert {"faster-whisper", "prefect", "duckdb"} <= names
    assert names.isdisjoint({"torch", "transformers", "openai-whisper"})


@contextmanager
def package_index(wheels: dict[str, bytes], requires: str = "&gt;=3.9", password: str = "") -> Iterator[str]:
    """A package index that has pip alone; relative links with checksums, and a password when one is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
            if password and self.headers.get("Authorization") != token:
                return self.answer(401, b"")
            if self.path == "/simple/pip/":
                links = (
                    f'<a href="../../files/{name}#sha256={hashlib.sha256(wheel.lstrip(b"!")).hexdigest()}"'
                    f' data-requires-python="{requires}">{name}</a>'
                    for name, wheel in wheels.items()
                )
                return self.answer(200, "\n".join(links).encode())
            return self.answer(200, wheels[self.path.rpartition("/")[2]])

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        user = f"me:{password}@" if password else ""
        yield f"http://{user}127.0.0.1:{server.server_address[1]}/simple"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def no_pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return monkeypatch


def test_index_of_pip_conf_and_of_the_environment(no_pip_settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = https://conf.example/simple\ncert = /conf.pem\n")
    assert pip_wheel.index_settings().urls[0] == "https://conf.example/simple"
    assert pip_wheel.index_settings().certificates == "/conf.pem"
    no_pip_settings.setenv("PIP_INDEX_URL", "https://env.example/simple")
    assert pip_wheel.index_settings().urls[0] == "https://env.example/simple"


def test_tested_pip_first_else_the_newest(no_pip_settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    older, newer = "pip-9.0-py3-none-any.whl", "pip-99.1-py3-none-any.whl"
    tested = f"pip-{pip_wheel.TESTED}-py3-none-any.whl"
    for wheels, expected in (({older: b"1", tested: b"2", newer: b"3"}, tested), ({older: b"1", newer: b"3"}, newer)):
        with package_index(wheels, password="s3cret/@") as url:
            no_pip_settings.setenv("PIP_INDEX_URL", url.replace("s3cret/@", "s3cret%2F%40"))
            assert pip_wheel.from_index(tmp_path).name == expected


def test_faults_of_the_index_are_named_without_the_password(
    no_pip_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"pip-{pip_wheel.TESTED}-py3-none-any.whl"
    with package_index({name: b"!tampered"}, password="s3cret") as url:
        no_pip_settings.setenv("PIP_INDEX_URL", url)
        with pytest.raises(pip_wheel.NoPip, match="not the content") as caught:
            pip_wheel.from_index(tmp_path)
        assert "s3cret" not in str(caught.value)
        no_pip_settings.setenv("PIP_INDEX_URL", url.replace("s3cret", "wrong"))
        with pytest.raises(pip_wheel.NoPip, match="401"):
            pip_wheel.from_index(tmp_path)
    with package_index({name: b"x"}, requires="&gt;=3.99") as url:
        no_pip_settings.setenv("PIP_INDEX_URL", url)
        with pytest.raises(pip_wheel.NoPip, match="no pip wheel for this Python"):
            pip_wheel.from_index(tmp_path)


def test_an_environment_without_ensurepip_gets_pip_from_the_index(
    no_pip_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bootstrap

    wheel = tmp_path / f"pip-{distribution('pip').version}-py3-none-any.whl"
    _pack_installed_pip(wheel)
    environment = tmp_path / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    # A distribution that left it out: the import fails.
    site_packages = next(environment.glob("lib/python*/site-packages"))
    (site_packages / "block.pth").write_text("import sys; sys.modules['ensurepip'] = None\n")
    no_pip_settings.setattr(bootstrap, "PYTHON", environment / "bin" / "python")
    no_pip_settings.setattr(pip_wheel, "from_another_pip", _no_other_pip)
    with package_index({wheel.name: wheel.read_bytes()}) as url:
        no_pip_settings.setenv("PIP_INDEX_URL", url)
        assert not bootstrap.has_pip()
        bootstrap.add_pip()
    assert bootstrap.has_pip()


def _no_other_pip(_folder: Path) -> Path:
    raise pip_wheel.NoPip("none")


def _pack_installed_pip(wheel: Path) -> None:
    """pip's wheel made again from the pip that is installed here: its RECORD lists the files."""
    installed = distribution("pip")
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in installed.files or []:
            if not file.as_posix().startswith("..") and file.suffix != ".pyc" and file.name != "RECORD":
                archive.write(str(file.locate()), file.as_posix())
        record = f"pip-{installed.version}.dist-info/RECORD"
        archive.writestr(record, "".join(f"{name},,\n" for name in [*archive.namelist(), record]))


def test_a_python_that_will_not_do_is_said_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    tried = subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "bootstrap.sh"],
        env={"PYTHON": str(old), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 2
    assert tried.stderr.count("\n") == 1
    assert "needs Python 3.11, 3.12 or 3.13" in tried.stderr
    assert f"{old} is 3.9" in tried.stderr
