"""Addresses of SOURCE, DEST and the spool: which a site allows, and what none may hold.

An address is repeated in every table, plan, record and log line, and by Prefect with the run's parameters. So it holds
no secret: credentials come from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from fsspec.registry import available_protocols
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stt_engine.errors import SourceRefused
from tasks.metadata_hosts import is_metadata_host
from tasks.redaction import QUERY_NAMES

_SECRET_QUERY = re.compile(rf"[?&;#]{QUERY_NAMES}=", re.IGNORECASE)
_PORT = re.compile(r"(?::\d*)?")
_ALIASES = {
    "local": "file", "s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs", "http": "https",
}  # fmt: skip
_WRAPPERS = frozenset({"zip", "tar", "libarchive", "simplecache", "filecache", "blockcache", "cached", "dir"})
"""Links of a chain that hold nothing themselves: what they are wrapped around is looked at."""


def _split_at_commas(value: object) -> object:
    return tuple(part.strip().lower() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class SiteSettings(BaseSettings):
    """What the operator of a site allows. From the environment of whoever runs the flow, and from nowhere else: one who
    may fill in the form of a run must not be able to widen it there."""

    model_config = SettingsConfigDict(env_prefix="NIGHTSCRIBE_", frozen=True, env_ignore_empty=True)

    allowed_protocols: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)] = Field(
        ("file", "s3", "gs", "abfs", "memory"), description="Protocols of SOURCE and the spool, with commas between."
    )

    def allows(self, protocol: str) -> bool:
        wanted = _ALIASES.get(protocol, protocol)
        return wanted in {_ALIASES.get(name, name) for name in self.allowed_protocols}


def holds_secret(uri: str) -> bool:
    """Whether a URI, or a link of a chain, holds a user or password (`https://kim:secret@host/`), or a query that may
    open something. Any query of a web address may; elsewhere `?` is a part of names, and only known words do.
    """
    return any(_link_holds_secret(link) for link in uri.split("::"))


def _link_holds_secret(link: str) -> bool:
    protocol, separator, rest = link.partition("://")
    if not separator:
        return False
    host = rest.partition("/")[0]
    if protocol.lower() in ("http", "https"):
        host, question, _ = host.partition("?")
        if question or "?" in rest:
            return True
    # A secret key of AWS may hold a slash, so that its `@` comes late: a colon that leads no port is enough.
    after = host.rpartition("]")[2] if host.startswith("[") else host.partition(":")[1] + host.partition(":")[2]
    colon = not _PORT.fullmatch(after) or (protocol.startswith("s3") and ":" in host)
    # abfs://CONTAINER@ACCOUNT/ is how Azure writes it.
    user = "@" in host and (protocol not in ("abfs", "abfss", "az") or ":" in host)
    return user or (colon and not host.startswith("arn:")) or bool(_SECRET_QUERY.search(rest))


def check_address(uri: str, what: str) -> None:
    """Raises SourceRefused for an address that holds a secret, is of a protocol that the site does not allow, or names
    a host that gives credentials to machines. The message repeats nothing of one with a secret."""
    if holds_secret(uri):
        raise SourceRefused(
            f"{what} holds a user, password or key, which every table and log would show: give it in the environment"
        )
    site = SiteSettings()
    for protocol, host in _links(uri):
        if protocol not in _WRAPPERS and not site.allows(protocol):
            raise SourceRefused(
                f"{what} {uri}: {protocol}:// is not allowed here, only {', '.join(site.allowed_protocols)}; whoever "
                f"runs this site may allow it with NIGHTSCRIBE_ALLOWED_PROTOCOLS"
            )
        if is_metadata_host(host):
            raise SourceRefused(f"{what} {uri}: {host} is an address for machines' credentials, and is never read")


def _links(uri: str) -> Iterator[tuple[str, str]]:
    """Protocol and host of every link, as fsspec takes them; what has no protocol lies on the disk."""
    first = uri.partition("://")[0] if "://" in uri else "file"
    chained = "::" in uri and first not in ("file", "local", "s3", "s3a")  # there `::` is a part of a name
    for link in uri.split("::") if chained else [uri]:
        protocol, separator, rest = link.partition("://")
        if not separator:
            word = link.partition(":")[0]
            yield (word if chained and (word in available_protocols() or word == "data") else "file"), ""
            continue
        host = rest.partition("/")[0]
        yield protocol.lower(), host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
