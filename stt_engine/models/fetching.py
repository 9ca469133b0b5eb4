"""A model from the Hub, once, into the cache or a directory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from stt_engine.errors import ModelFormatError, ModelNotFound, StorageUnavailable, UsageError
from stt_engine.models.bundled import FIXTURE, unpack_fixture
from stt_engine.models.cache import cache_root, publish
from stt_engine.models.layout import CT2_WEIGHTS, SAFETENSORS, TORCH_WEIGHTS, read_layout
from stt_engine.models.names import candidate_repos, close_names, find_known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step is."""

    doing: str
    """E.g. "fetching openai/whisper-tiny: model.safetensors"."""
    done_bytes: int = 0
    total_bytes: int | None = None


Report = Callable[[Progress], None]

_SMALL_FILES = re.compile(
    r"(config|generation_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens"
    r"|vocab|vocabulary|normalizer)\.json|merges\.txt|vocabulary\.txt"
)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that the network is not to be touched; asked at each call, not at import."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def cached(repo: str, root: Path) -> Path | None:
    """A repository that was fetched before: by us, or whole by another tool into the Hub's own cache."""
    ours = _place(repo, root)
    if ours.exists():
        return ours
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        theirs = Path(snapshot_download(repo, local_files_only=True))
        read_layout(theirs)
    except (LocalEntryNotFoundError, HFValidationError, ModelFormatError, ModelNotFound):
        return None
    return theirs


def fetch_to_cache(repo: str, root: Path, report: Report | None = None) -> Path:
    """Fetches the model's files of a repository; goes on where an interrupted call stopped.

    Raises ModelNotFound, ModelFormatError (no Whisper in there), StorageUnavailable, UsageError (cannot write).
    """

    def fill(partial: Path) -> None:
        _download(repo, partial, report)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the Hub client's own notes

    return publish(_place(repo, root), fill, resume=True)


def fetch(
    name: str, directory: str | Path | None = None, *, cache_dir: str | Path | None = None, report: Report | None = None
) -> Path:
    """Gets a model ahead of its use: into the cache, or into `directory`, to be carried to a machine without network.

    In `directory`, files that are there already are left as they are, so that it completes a directory too.

    Raises as `fetch_to_cache`; UsageError when HF_HUB_OFFLINE is set and the model is not in the cache.
    """
    root = cache_root(cache_dir)
    if name != FIXTURE and find_known(name) is None and not is_repo_name(name):
        raise unknown_name(name)
    repo = candidate_repos(name)[0]
    at_hand = unpack_fixture(root) if name == FIXTURE else cached(repo, root)
    if at_hand is None and is_offline():
        raise UsageError(f"HF_HUB_OFFLINE is set and the model {name} ({repo}) is not in the cache {root}: unset it.")
    if directory is None:
        return at_hand or fetch_to_cache(repo, root, report)
    target = Path(directory).expanduser().absolute()
    try:
        target.mkdir(parents=True, exist_ok=True)
        if at_hand is not None:
            _copy_missing(at_hand, target)
        else:
            _download(repo, target, report)
            shutil.rmtree(target / ".cache", ignore_errors=True)
    except OSError as error:
        raise UsageError(f"cannot write the model into {target}: {error.strerror or error}.") from error
    read_layout(target)
    return target


def is_repo_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def unknown_name(name: str) -> ModelNotFound:
    close = close_names(name)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return ModelNotFound(
        f"there is no model {name!r}: neither a directory or .pt file, nor a name that is known, nor org/repo on the "
        f"Hub.{meant} A model is fetched ahead with: nightscribe models fetch {close[0] if close else 'large-v3-turbo'}"
    )


def _place(repo: str, root: Path) -> Path:
    return root / "models" / repo.replace("/", "--")


def _copy_missing(source: Path, target: Path) -> None:
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        to = target / file.relative_to(source)
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            partial = to.with_name(f".{to.name}.partial")
            shutil.copyfile(file, partial)
            partial.replace(to)


def _download(repo: str, folder: Path, report: Report | None) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    with _hub_errors(repo):
        info = HfApi(endpoint=endpoint).model_info(repo, files_metadata=True)
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        for file in _wanted(repo, set(sizes)):
            if (folder / file).exists():
                continue
            what = f"fetching {repo}: {file}"
            if report:
                report(Progress(what, 0, sizes[file]))
            # The commit that the listing named, so that no file is of another one.
            hf_hub_download(
                repo,
                file,
                revision=info.sha,
                local_dir=folder,
                endpoint=endpoint,
                tqdm_class=_reporting_bar(what, sizes[file], report),
            )


def _wanted(repo: str, files: set[str]) -> list[str]:
    """The files of one form of weights, and the small ones; last the weights, so that faults show early."""
    small = sorted(file for file in files if _SMALL_FILES.fullmatch(file))
    for name in (SAFETENSORS, TORCH_WEIGHTS, CT2_WEIGHTS):
        if name in files:
            return [*small, name]
        if (index := f"{name}.index.json") in files:
            stem, suffix = name.rsplit(".", 1)
            shards = sorted(file for file in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", file))
            return [*small, index, *shards]
    raise ModelFormatError(
        f"the repository {repo} holds no weights that a backend reads ({SAFETENSORS}, {TORCH_WEIGHTS}, {CT2_WEIGHTS}). "
        "Name another repository or a model name such as large-v3-turbo."
    )


def _reporting_bar(what: str, total_bytes: int | None, report: Report | None) -> Any:
    """A silent tqdm that tells `report` instead of the terminal; the Hub client asks for a tqdm class."""
    from tqdm.auto import tqdm

    class ReportingBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": StringIO(), "disable": False})

        def display(self, *_args: object, **_kwargs: object) -> None:
            return

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if report:
                report(Progress(what, int(self.n), total_bytes))
            return shown

    return ReportingBar


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """The Hub client's exceptions as ours."""
    from huggingface_hub import errors as hub

    # Of httpx or httpx2, whichever this version of the client is built on.
    transport_error: type[Exception] = hub.HTTPError  # type: ignore[attr-defined]
    hint = f"or fetch it where the Hub can be reached (nightscribe models fetch {repo} DIR) and name DIR"
    try:
        yield
    except hub.GatedRepoError as error:
        raise ModelNotFound(
            f"the Hub wants consent for {repo}: accept its terms on the Hub's page of it and set HF_TOKEN."
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError, hub.RevisionNotFoundError) as error:
        raise _not_on_hub(repo) from error
    except hub.OfflineModeIsEnabled as error:
        raise ModelNotFound(f"{repo} is not in the cache and HF_HUB_OFFLINE is set: unset it, {hint}.") from error
    except hub.RemoteEntryNotFoundError as error:
        raise StorageUnavailable(f"a file of {repo} vanished from the Hub while it was fetched; try again.") from error
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise _not_on_hub(repo) from error
        raise StorageUnavailable(f"the Hub answered {status} for {repo}; try again, {hint}.") from error
    except (transport_error, hub.LocalEntryNotFoundError, hub.FileMetadataError, OSError) as error:
        # The client says "not found locally" when it could not ask. A full disk is for `publish` to explain.
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and not isinstance(error, ConnectionError | TimeoutError)
        ):
            raise
        raise StorageUnavailable(
            f"the Hub cannot be reached for {repo} ({type(error).__name__}); check the network, {hint}."
        ) from error


def _not_on_hub(repo: str) -> ModelNotFound:
    close = close_names(repo)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return ModelNotFound(
        f"there is no model {repo!r}: neither a directory here nor a repository on the Hub (a private one needs "
        f"HF_TOKEN).{meant} Try: nightscribe models fetch {close[0] if close else 'large-v3-turbo'}"
    )
