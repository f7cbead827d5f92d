"""The few calls to a Hugging Face hub (or a mirror) that a verified download needs.

huggingface_hub supplies the repository listing, URLs, headers, tokens and the HTTP client; the bytes are
streamed here, because its own downloader checks no hash, bounds no size, and may fetch from other hosts than
the endpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from personalive.checkpoints.config import DownloadConfig
from personalive.errors import DownloadError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

ENDPOINT_ENV = "HF_ENDPOINT"
_AGAIN = "run `personalive weights download` again (it resumes)"


class ConnectionLostError(Exception):
    """The transfer broke off; it may be taken up again."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository at one commit, with the hash published for it.

    ``sha256`` is known for large files (LFS), ``git_sha1`` (git's name of the content) for all others.
    """

    repo: str
    path: str
    commit: str
    size: int
    sha256: str | None
    git_sha1: str | None


class Hub:
    """A hub endpoint. The user's saved token goes to the official one only; a mirror gets one if told so."""

    def __init__(self, endpoint: str | None, token: str | None, settings: DownloadConfig) -> None:
        self.endpoint = (endpoint or os.environ.get(ENDPOINT_ENV) or settings.endpoint).rstrip("/")
        if urlsplit(self.endpoint).scheme not in ("http", "https") or not urlsplit(self.endpoint).netloc:
            raise DownloadError(f"{self.endpoint}: not a hub address: give --endpoint like {settings.endpoint}")
        self._token: str | bool | None = token or (None if self.endpoint == settings.endpoint else False)
        self._settings = settings

    def files(self, repo: str, revision: str) -> dict[str, RemoteFile]:
        """All files of a repository by path.

        Raises:
            DownloadError: unreachable, absent, gated, or a reply that makes no sense.
        """
        from huggingface_hub import HfApi  # noqa: PLC0415 (takes a second)

        try:
            with self._named_errors(repo):
                info = HfApi(endpoint=self.endpoint, token=self._token).model_info(
                    repo, revision=revision, files_metadata=True, timeout=self._settings.timeout_s
                )
            commit = info.sha or revision
            return {s.rfilename: _remote_file(repo, commit, s) for s in info.siblings or []}
        except ConnectionLostError as error:
            raise DownloadError(
                f"{self.endpoint}: cannot be reached ({error}): check the network, or name a mirror with "
                "`personalive weights download --endpoint URL`"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DownloadError(
                f"{self.endpoint}: no hub answers there ({type(error).__name__}): check --endpoint"
            ) from error

    @contextmanager
    def stream(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Content of a file from ``offset`` bytes on.

        Yields where it really starts (0 if the server serves no ranges), and its chunks.

        Raises:
            ConnectionLostError: the connection could not be made or broke.
            DownloadError: the server refuses.
        """
        from huggingface_hub import hf_hub_url  # noqa: PLC0415
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # noqa: PLC0415

        url = hf_hub_url(file.repo, file.path, revision=file.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._named_errors(f"{file.repo}/{file.path}"):
            request: Any = get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=self._settings.timeout_s
            )
            with request as response:
                hf_raise_for_status(response)
                start = offset if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
                yield start, response.iter_bytes(self._settings.chunk_bytes)

    @contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        """Turn the client's errors into ours. ``ConnectionLostError`` means that another try may work."""
        from huggingface_hub import errors  # noqa: PLC0415
        from huggingface_hub.utils import get_session  # noqa: PLC0415

        # httpx in huggingface_hub 1, httpx2 in 2: taken from the client itself
        client: Any = sys.modules[type(get_session()).__module__.partition(".")[0]]
        try:
            yield
        except errors.HfHubHTTPError as error:
            raise _refusal(what, self.endpoint, error) from error
        except errors.OfflineModeIsEnabled as error:
            raise DownloadError(f"{what}: offline mode is on: unset HF_HUB_OFFLINE and {_AGAIN}") from error
        except errors.HFValidationError as error:
            raise DownloadError(f"{what}: not a repository name: check the list of sources") from error
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


def _refusal(what: str, endpoint: str, error: Any) -> Exception:
    from huggingface_hub import errors  # noqa: PLC0415

    status = getattr(error.response, "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == HTTPStatus.FORBIDDEN:
        return DownloadError(
            f"{what}: access is restricted: accept its terms at {endpoint}, run `hf auth login`, then {_AGAIN}"
        )
    if status == HTTPStatus.UNAUTHORIZED:
        return DownloadError(
            f"{what}: {endpoint} wants a login (or has no such repository): run `hf auth login`, then {_AGAIN}"
        )
    if status == HTTPStatus.NOT_FOUND:
        return DownloadError(f"{what}: not found at {endpoint}: try another --endpoint")
    if status is not None and (status >= 500 or status in (408, 429)):
        return ConnectionLostError(f"{endpoint} answered {status}")
    return DownloadError(f"{what}: {endpoint} answered {status}: {_AGAIN} or try another --endpoint")
