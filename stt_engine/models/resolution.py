"""From what the user wrote to a directory that is here and complete."""

from __future__ import annotations

from pathlib import Path

from stt_engine.errors import ModelNotFound
from stt_engine.models.bundled import FIXTURE, unpack_fixture
from stt_engine.models.cache import cache_root
from stt_engine.models.fetching import Report, cached, fetch_to_cache, is_offline, is_repo_name, unknown_name
from stt_engine.models.layout import read_layout
from stt_engine.models.names import candidate_repos, find_known


def resolve(
    name_or_dir: str | Path,
    *,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
    report: Report | None = None,
) -> Path:
    """The absolute path of a complete model: a directory, or OpenAI's `.pt` file.

    A known name ("tiny", "turbo", "fixture") wins over a directory of that name: write `./tiny` for the directory.
    What a name or `org/repo` stands for is fetched once; `offline` (default: HF_HUB_OFFLINE) forbids that.

    Raises ModelNotFound, ModelFormatError, AccessDenied, StorageUnavailable (the Hub), UsageError (the cache).
    """
    name = str(name_or_dir)
    root = cache_root(cache_dir)
    if isinstance(name_or_dir, str):
        if name == FIXTURE:
            return unpack_fixture(root)
        if find_known(name) is not None:
            return _from_hub(name, root, offline, report)
    path = Path(name).expanduser()
    if path.exists() or isinstance(name_or_dir, Path):
        path = path.absolute()
        read_layout(path)
        return path
    if is_repo_name(name):
        return _from_hub(name, root, offline, report)
    raise unknown_name(name)


def _from_hub(name: str, root: Path, offline: bool | None, report: Report | None) -> Path:
    repos = candidate_repos(name)
    if (best := cached(repos[0], root)) is not None:
        return best
    if not (is_offline() if offline is None else offline):
        return fetch_to_cache(repos[0], root, report)
    for repo in repos[1:]:
        if (other := cached(repo, root)) is not None:
            return other
    raise ModelNotFound(
        f"the model {name!r} ({repos[0]}) is not in the cache {root}, and offline means no fetching. Where there is a "
        f"network: nightscribe models fetch {name}; or there: nightscribe models fetch {name} DIR, and carry DIR here."
    )
