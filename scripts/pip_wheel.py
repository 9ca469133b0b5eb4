"""Gets pip's own wheel for a Python that came without it, from a pip elsewhere or straight from the package index.

Standard library only. The index is asked through the simple API (PEP 503), with the settings that pip itself would
follow: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT, PIP_TRUSTED_HOST, the same names in pip.conf, and the usual
proxy variables.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

TESTED = "26.3"
"""The version of pip that the constraints were tested with; the newest final one where an index has not got it."""

TIMEOUT_S = 60


class NoPip(Exception):
    """Neither a pip to ask nor an index that answers; the message says what was tried."""


@dataclass(frozen=True)
class IndexSettings:
    urls: tuple[str, ...]
    certificates: str | None
    trusted_hosts: frozenset[str]


@dataclass(frozen=True)
class Wheel:
    version: tuple[int, ...]
    url: str
    sha256: str | None


def fetch(folder: Path) -> Path:
    """Puts a pip wheel into `folder` and returns its path. Raises NoPip."""
    tried: list[str] = []
    for attempt in (from_another_pip, from_index):
        try:
            return attempt(folder)
        except NoPip as error:
            tried.append(str(error))
    raise NoPip(
        "there is no pip to be had: " + "; ".join(tried) + ". Name your package index "
        "(PIP_INDEX_URL=https://...), or install your distribution's python3-venv or python3-pip, and call again."
    )


def from_another_pip(folder: Path) -> Path:
    """By a pip outside the environment: it knows the user's index, proxy and certificates."""
    pips = [[sys.executable, "-m", "pip"], *([path] for name in ("pip3", "pip") if (path := shutil.which(name)))]
    for pip in pips:
        for wanted in (f"pip=={TESTED}", "pip"):
            command = [*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, wanted]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return next(folder.glob("pip-*.whl"))
            if "No module named pip" in done.stderr:
                break
    raise NoPip("no pip outside the environment could download one")


def from_index(folder: Path) -> Path:
    settings = index_settings()
    faults: list[str] = []
    for index in settings.urls:
        try:
            wheel = choose(wheels_of(index, settings))
            content = read(wheel.url, settings)
        except (OSError, ValueError) as error:
            faults.append(f"{without_password(index)}: {error}")
            continue
        if wheel.sha256 and hashlib.sha256(content).hexdigest() != wheel.sha256:
            faults.append(f"{without_password(wheel.url)}: not the content that the index promises")
            continue
        path = folder / urllib.parse.unquote(Path(urllib.parse.urlsplit(wheel.url).path).name)
        path.write_bytes(content)
        return path
    raise NoPip("the package index did not hand one out (" + "; ".join(faults) + ")")


def index_settings() -> IndexSettings:
    main, extra = setting("index-url"), setting("extra-index-url")
    urls = [*(main or "https://pypi.org/simple").split(), *(extra or "").split()]
    return IndexSettings(tuple(urls), setting("cert"), frozenset((setting("trusted-host") or "").split()))


def setting(name: str) -> str | None:
    """A setting of pip's: the environment first, then pip.conf of the user, then of the machine."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    home = Path.home()
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [xdg / "pip" / "pip.conf", home / ".pip" / "pip.conf", Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")]
    if os.environ.get("PIP_CONFIG_FILE"):
        files.insert(0, Path(os.environ["PIP_CONFIG_FILE"]))
    for file in files:
        config = configparser.RawConfigParser()
        try:
            config.read(file)
        except configparser.Error:
            continue  # pip itself will complain about it in better words
        for section in ("install", "download", "global"):
            if value := config.get(section, name, fallback=None):
                return value
    return None


class Links(HTMLParser):
    """The `<a href=... data-requires-python=...>` of an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and (href := attributes.get("href")):
            self.found.append((href, attributes.get("data-requires-python") or ""))


def wheels_of(index: str, settings: IndexSettings) -> Iterator[Wheel]:
    page_url = index.rstrip("/") + "/pip/"
    if page_url.startswith("file:"):
        page_url += "index.html"
    links = Links()
    links.feed(read(page_url, settings).decode("utf-8", "replace"))
    for href, requires in links.found:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(page_url, href))
        name = re.search(r"/pip-(\d+(?:\.\d+)*)-py3-none-any\.whl$", urllib.parse.urlsplit(url).path)
        if name and allows_this_python(requires):
            checksum = re.search(r"sha256=([0-9a-f]{64})", fragment)
            user = urllib.parse.urlsplit(page_url).netloc.rpartition("@")[0]
            yield Wheel(
                tuple(int(part) for part in name[1].split(".")),
                with_user(url, user) if same_host(url, page_url) else url,
                checksum[1] if checksum else None,
            )


def allows_this_python(requires: str) -> bool:
    """pip states a lower bound and, in old releases, excluded series below 3.11; the bound is what matters."""
    bound = re.search(r">=\s*(\d+)\.(\d+)", requires)
    return bound is None or sys.version_info[:2] >= (int(bound[1]), int(bound[2]))


def choose(wheels: Iterator[Wheel]) -> Wheel:
    by_version = {wheel.version: wheel for wheel in wheels}
    if not by_version:
        raise ValueError("it lists no pip wheel for this Python")
    tested = tuple(int(part) for part in TESTED.split("."))
    return by_version.get(tested) or by_version[max(by_version)]


def read(url: str, settings: IndexSettings) -> bytes:
    parts = urllib.parse.urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)), headers={"Accept": "*/*"})
    if user:
        token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=settings.certificates)
    if {parts.hostname, host} & settings.trusted_hosts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
        return bytes(answer.read())


def same_host(a: str, b: str) -> bool:
    return urllib.parse.urlsplit(a).hostname == urllib.parse.urlsplit(b).hostname


def with_user(url: str, user: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if not user or "@" in parts.netloc:
        return url
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))


def without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)
