"""What models this machine has, for `nightscribe models list`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stt_engine.models.bundled import FIXTURE
from stt_engine.models.cache import cache_root
from stt_engine.models.fetching import cached
from stt_engine.models.layout import Form, read_layout
from stt_engine.models.names import KNOWN

Origin = Literal["built in", "fetched"]


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One model that `resolve` finds without a network."""

    name: str
    path: Path | None
    """None for the built-in one until it is first used."""
    forms: frozenset[Form]
    size_bytes: int
    origin: Origin


def installed(*, cache_dir: str | Path | None = None) -> list[InstalledModel]:
    """The built-in model, then those in the cache (ours, or the Hub's own for the known names), by name."""
    root = cache_root(cache_dir)
    names = {repo: name for name, known in KNOWN.items() for repo in (known.hugging_face_repo, known.ct2_repo)}
    repos = set(names) | {path.name.replace("--", "/", 1) for path in (root / "models").glob("[!.]*")}
    found = [_fixture(root)]
    for repo in sorted(repos, key=lambda repo: (names.get(repo, repo), repo)):
        if (path := cached(repo, root)) is not None:
            layout = read_layout(path)
            found.append(InstalledModel(names.get(repo, repo), path, layout.forms, _size_bytes(path), "fetched"))
    return found


def _fixture(root: Path) -> InstalledModel:
    path = next((root / "fixture").glob("[!.]*"), None)
    forms = frozenset({Form.HUGGING_FACE, Form.CTRANSLATE2})
    return InstalledModel(FIXTURE, path, forms, _size_bytes(path) if path else 0, "built in")


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
