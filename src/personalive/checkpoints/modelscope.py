"""Listings and content of ModelScope, in its plain HTTP API; no token is sent."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from personalive.checkpoints.config import DownloadConfig
from personalive.checkpoints.hub import Hub, RemoteFile
from personalive.errors import DownloadError

_ENDPOINT = "https://www.modelscope.cn"
_REPOSITORIES = {"stabilityai/sd-vae-ft-mse": "AI-ModelScope/sd-vae-ft-mse"}  # the others have the hub's names
_REVISIONS = {"main": "master"}


class ModelScope(Hub):
    """ModelScope in place of a hub, with the same checks of sizes and hashes."""

    hint = "fetch the files by hand"

    def __init__(self, endpoint: str | None, settings: DownloadConfig) -> None:
        super().__init__(endpoint or _ENDPOINT, None, settings)

    def _listed(self, repo: str, revision: str) -> dict[str, RemoteFile]:
        query = urlencode({"Revision": _REVISIONS.get(revision, revision), "Recursive": "true"})
        content = bytearray()
        with self._response(f"{self._repository(repo)}/repo/files?{query}") as response:
            for chunk in response.iter_bytes(self._settings.chunk_bytes):
                content += chunk
                if len(content) > self._settings.max_listing_bytes:
                    raise DownloadError(f"{self.endpoint}: lists more files than {repo} can have: check --endpoint")
        listed = [entry for entry in json.loads(content)["Data"]["Files"] if entry["Type"] == "blob"]
        return {entry["Path"]: _remote_file(repo, revision, entry) for entry in listed}

    def address(self, repo: str, path: str, revision: str) -> str:
        """See ``Hub``."""
        query = urlencode({"Revision": _REVISIONS.get(revision, revision), "FilePath": path})
        return f"{self._repository(repo)}/repo?{query}"

    def _repository(self, repo: str) -> str:
        return f"{self.endpoint}/api/v1/models/{quote(_REPOSITORIES.get(repo, repo))}"


def _remote_file(repo: str, revision: str, entry: dict[str, Any]) -> RemoteFile:
    return RemoteFile(
        repo=repo,
        path=entry["Path"],
        commit=entry.get("Revision") or revision,
        size=int(entry["Size"]),
        sha256=str(entry.get("Sha256") or "") or None,
        git_sha1=None,
    )
