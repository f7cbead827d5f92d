"""Listings and content of a Hugging Face hub, or of a mirror.

huggingface_hub supplies listings, URLs, headers, tokens and the HTTP client. Content is streamed here, because its
downloader bounds no size, checks no hash and resumes nothing (docs/decisions.md).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from personalive.checkpoints.config import DownloadConfig
from personalive.errors import DownloadError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

AGAIN = "run `personalive weights download` again (it resumes)"


class ConnectionLostError(Exception):
    """The transfer broke off; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository at one commit, with its published hash.

    ``sha256`` is known for large files (LFS), ``git_sha1`` (git's name of the content) for all others.
    """

    repo: str
    path: str
    commit: str
    size: int
    sha256: str | None
    git_sha1: str | None

    @property
    def digest(self) -> str | None:
        """The published hash, if there is one."""
        return self.sha256 or self.git_sha1

    def matches(self, path: Path) -> bool:
        """Return True if the file at ``path`` has the published hash."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self._new_hash).hexdigest() == self.digest

    def _new_hash(self) -> Any:
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)  # as git does

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}"


class Hub:
    """A hub endpoint. The user's saved token goes to the official one only; a mirror gets ``token`` or none."""

    hint = f"run `hf auth login`, then {AGAIN}"  # what to do where access is refused

    def __init__(self, endpoint: str | None, token: str | None, settings: DownloadConfig) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or settings.endpoint).rstrip("/")
        if urlsplit(self.endpoint).scheme not in ("http", "https") or not urlsplit(self.endpoint).netloc:
            raise DownloadError(f"{self.endpoint}: not a hub address: give --endpoint like {settings.endpoint}")
        self._token: str | bool | None = token or (None if self.endpoint == settings.endpoint else False)
        self._settings = settings

    def files(self, repo: str, revision: str) -> dict[str, RemoteFile]:
        """Return all files of a repository by path.

        Raises:
            DownloadError: unreachable, absent, gated, or a reply that makes no sense.
        """
        try:
            with self._errors(repo):
                return self._listed(repo, revision)
        except ConnectionLostError as error:
            raise DownloadError(
                f"{self.endpoint}: cannot be reached ({error}): check the network, or name a mirror with "
                "`personalive weights download --endpoint URL`"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DownloadError(
                f"{self.endpoint}: no hub answers there ({type(error).__name__}): check --endpoint"
            ) from error

    def _listed(self, repo: str, revision: str) -> dict[str, RemoteFile]:
        from huggingface_hub import HfApi  # noqa: PLC0415 (takes a second)

        info = HfApi(endpoint=self.endpoint, token=self._token).model_info(
            repo, revision=revision, files_metadata=True, timeout=self._settings.timeout_s
        )
        return {s.rfilename: _remote_file(repo, info.sha or revision, s) for s in info.siblings or []}

    def address(self, repo: str, path: str, revision: str) -> str:
        """Address of the content of a file, also for a browser."""
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"

    @contextmanager
    def stream(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open a file at ``offset`` bytes; yield the true offset (0 if the server serves no ranges) and the chunks.

        Raises:
            ConnectionLostError: the connection could not be made or broke.
            DownloadError: the server refuses.
        """
        url = self.address(file.repo, file.path, file.commit)
        with self._errors(str(file)), self._response(url, offset) as response:
            start = offset if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
            yield start, response.iter_bytes(self._settings.chunk_bytes)

    @contextmanager
    def _response(self, url: str, offset: int = 0) -> Iterator[Any]:
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # noqa: PLC0415

        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request: Any = get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=self._settings.timeout_s
        )
        with request as response:
            hf_raise_for_status(response)
            yield response

    @contextmanager
    def _errors(self, subject: str) -> Iterator[None]:
        """Raise the client's errors as ``DownloadError``, or ``ConnectionLostError`` where a retry may help."""
        from huggingface_hub import errors  # noqa: PLC0415
        from huggingface_hub.utils import get_session  # noqa: PLC0415

        # httpx in huggingface_hub 1, httpx2 in 2: taken from the client itself
        client: Any = sys.modules[type(get_session()).__module__.partition(".")[0]]
        try:
            yield
        except errors.HfHubHTTPError as error:
            gated = isinstance(error, errors.GatedRepoError)
            status = HTTPStatus.FORBIDDEN if gated else error.response.status_code
            raise _refusal(subject, self.endpoint, status, self.hint) from error
        except errors.OfflineModeIsEnabled as error:
            raise DownloadError(f"{subject}: offline mode is on: unset HF_HUB_OFFLINE and {AGAIN}") from error
        except errors.HFValidationError as error:
            raise DownloadError(f"{subject}: not a repository name: check the list of sources") from error
        except (client.InvalidURL, client.UnsupportedProtocol) as error:
            raise DownloadError(f"{self.endpoint}: not a hub address: check --endpoint") from error
        except client.HTTPError as error:
            raise ConnectionLostError(f"{type(error).__name__}: {error}"[:120]) from error


def _remote_file(repo: str, commit: str, sibling: RepoSibling) -> RemoteFile:
    lfs = sibling.lfs
    return RemoteFile(
        repo=repo,
        path=sibling.rfilename,
        commit=commit,
        size=int((lfs.size if lfs else sibling.size) or 0),
        sha256=lfs.sha256 if lfs else None,
        git_sha1=None if lfs else sibling.blob_id,
    )


def _refusal(subject: str, endpoint: str, status: int, login: str) -> Exception:
    if status >= 500 or status in (408, 429):
        return ConnectionLostError(f"{endpoint} answered {status}")
    reasons: dict[int, str] = {
        HTTPStatus.FORBIDDEN: f"access is restricted: accept its terms at {endpoint}, {login}",
        HTTPStatus.UNAUTHORIZED: f"{endpoint} wants a login (or has no such repository): {login}",
        HTTPStatus.NOT_FOUND: f"not found at {endpoint}: try another --endpoint",
    }
    return DownloadError(
        f"{subject}: " + reasons.get(status, f"{endpoint} answered {status}: {AGAIN} or try another --endpoint")
    )
