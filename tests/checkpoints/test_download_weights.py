"""Downloads from a real local server that acts as a hub, faults included."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import socket
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from personalive.checkpoints import download as download_module
from personalive.checkpoints.config import DownloadConfig
from personalive.checkpoints.download import download_weights, missing_sources
from personalive.checkpoints.layout import CONFIGS, MODEL_CONFIG, missing_files
from personalive.checkpoints.sources import RELEASED, Source
from personalive.errors import DownloadError
from personalive.progress import Progress

QUICK = DownloadConfig(chunk_bytes=1000, timeout_s=5, retries=2, retry_pause_s=0, report_interval_s=0)
CONTENT = bytes(range(256)) * 40
CONFIG = b'{"in_channels": 4}\n'
REPO = "someone/portraits"
WEIGHTS = Source(repo=REPO, paths=("deep/net.pth",), destinations=("personalive/net.pth",), max_bytes=20_000)
SETTINGS = Source(repo=REPO, paths=("config.json",), destinations=("personalive/c.json",), max_bytes=100)


@pytest.fixture(autouse=True)
def served(hub: Any) -> None:
    hub.files[REPO] = {"deep/net.pth": CONTENT, "config.json": CONFIG, "../../evil": b"x"}
    hub.small = {"config.json"}


def fetch(hub: Any, folder: Path, *sources: Source, **options: Any) -> list[Path]:
    options = {"settings": QUICK, "endpoint": hub.endpoint} | options
    return download_weights(folder, sources=sources or (WEIGHTS,), **options)


def refusal(hub: Any, folder: Path, *sources: Source, **options: Any) -> str:
    """Return the error's line; nothing unverified may be in place."""
    with pytest.raises(DownloadError) as caught:
        fetch(hub, folder, *sources, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "personalive/net.pth").exists()
    return str(caught.value)


def partials(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.part")]


def content_requests(hub: Any) -> list[dict[str, str]]:
    return hub.asked("/cdn/")


def test_files_arrive_whole_at_our_paths(hub: Any, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path, WEIGHTS, SETTINGS) == [
        tmp_path / "personalive/net.pth",
        tmp_path / "personalive/c.json",
    ]
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT
    assert (tmp_path / "personalive/c.json").read_bytes() == CONFIG
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["c.json", "net.pth"]
    assert len(hub.asked("/api/models/")) == 1  # one listing for all files of a repository


def test_a_second_run_fetches_nothing(hub: Any, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    before, reports = len(content_requests(hub)), []
    fetch(hub, tmp_path, progress=reports.append)
    assert len(content_requests(hub)) == before
    assert [(now.note, now.done, now.total) for now in reports] == [("net.pth", len(CONTENT), len(CONTENT))]
    assert not reports[0].rate


def test_progress_reaches_the_total(hub: Any, tmp_path: Path) -> None:
    reports: list[Progress] = []
    fetch(hub, tmp_path, WEIGHTS, SETTINGS, progress=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert len(done) > 5
    assert done[-1] == reports[-1].total == len(CONTENT) + len(CONFIG)
    assert reports[-1].left_s == 0
    assert reports[-1].rate > 0


def test_a_cut_connection_is_resumed_within_the_run(hub: Any, tmp_path: Path) -> None:
    hub.cut_after = [3000, 4000]
    fetch(hub, tmp_path)
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT
    starts = [int(headers["range"][6:-1]) for headers in content_requests(hub)[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_broken_run_is_resumed_by_the_next(hub: Any, tmp_path: Path) -> None:
    hub.cut_after = [5000] + [0] * 10
    message = refusal(hub, tmp_path)
    assert re.search(r"stopped at [1-9]\d* of 10240 bytes .*personalive weights download.*resumes", message)
    (kept,) = partials(tmp_path)
    assert 0 < kept <= 5000
    hub.cut_after, earlier = [], len(content_requests(hub))
    reports: list[Progress] = []
    fetch(hub, tmp_path, progress=reports.append)
    assert reports[0].done > kept  # what is on disk counts as done
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT
    (again,) = content_requests(hub)[earlier:]
    assert again["range"] == f"bytes={kept}-"
    assert partials(tmp_path) == []


def test_a_server_without_ranges_starts_over(hub: Any, tmp_path: Path) -> None:
    hub.serves_ranges, hub.cut_after = False, [5000]
    reports: list[Progress] = []
    fetch(hub, tmp_path, progress=reports.append)
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT
    assert max(report.done for report in reports) == len(CONTENT)


def test_a_partial_file_of_another_version_is_not_continued(hub: Any, tmp_path: Path) -> None:
    hub.cut_after = [5000] + [0] * 10
    refusal(hub, tmp_path)
    hub.cut_after = []
    hub.files[REPO]["deep/net.pth"] = CONTENT[::-1]
    fetch(hub, tmp_path)
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("source", [WEIGHTS, SETTINGS])
def test_wrong_content_is_refused_and_removed(hub: Any, tmp_path: Path, source: Source) -> None:
    hub.corrupt = set(source.paths)
    assert "does not match its published hash" in refusal(hub, tmp_path, source)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_content_beyond_the_announced_size_is_not_taken(hub: Any, tmp_path: Path) -> None:
    hub.surplus = b"more" * 5000
    assert "more than the 10240 bytes" in refusal(hub, tmp_path)
    assert sum(partials(tmp_path)) <= len(CONTENT)


def test_files_larger_than_expected_are_not_begun(hub: Any, tmp_path: Path) -> None:
    assert "at most 100 expected" in refusal(hub, tmp_path, replace(WEIGHTS, max_bytes=100))
    assert content_requests(hub) == []


def pinned(sha256: str) -> Source:
    return replace(WEIGHTS, sha256=sha256)


def test_a_pinned_hash_must_be_the_published_one(hub: Any, tmp_path: Path) -> None:
    assert "not the expected version" in refusal(hub, tmp_path, pinned("0" * 64))
    assert content_requests(hub) == []
    fetch(hub, tmp_path, pinned(hashlib.sha256(CONTENT).hexdigest()))


def test_a_pinned_hash_counts_where_none_is_published(hub: Any, tmp_path: Path) -> None:
    hub.omit_hashes = True
    assert "publishes no hash" in refusal(hub, tmp_path)
    assert "does not match" in refusal(hub, tmp_path, pinned("1" * 64))
    fetch(hub, tmp_path, pinned(hashlib.sha256(CONTENT).hexdigest()))


def test_a_pinned_hash_counts_where_git_s_is_published(hub: Any, tmp_path: Path) -> None:
    hub.small = set(WEIGHTS.paths)
    assert "does not match" in refusal(hub, tmp_path, pinned("1" * 64))
    fetch(hub, tmp_path, pinned(hashlib.sha256(CONTENT).hexdigest()))


def test_the_first_present_alternative_is_taken(hub: Any, tmp_path: Path) -> None:
    source = Source(
        repo=REPO,
        paths=("net.safetensors", "deep/net.pth"),
        destinations=("personalive/net.safetensors", "personalive/net.pth"),
        max_bytes=20_000,
    )
    assert fetch(hub, tmp_path / "a", source) == [tmp_path / "a/personalive/net.pth"]
    hub.files[REPO]["net.safetensors"] = b"safe"
    assert fetch(hub, tmp_path / "b", source) == [tmp_path / "b/personalive/net.safetensors"]


def test_an_alternative_that_was_fetched_by_hand_is_enough(hub: Any, tmp_path: Path) -> None:
    source = replace(WEIGHTS, paths=("net.safetensors", *WEIGHTS.paths), destinations=("n", *WEIGHTS.destinations))
    hub.files[REPO]["net.safetensors"] = b"safe"
    (tmp_path / "personalive").mkdir()
    (tmp_path / "personalive/net.pth").write_bytes(CONTENT)
    assert fetch(hub, tmp_path, source) == [tmp_path / "personalive/net.pth"]
    assert content_requests(hub) == []


def test_absent_files_and_repositories_are_named(hub: Any, tmp_path: Path) -> None:
    absent = Source(repo=REPO, paths=("a.bin", "b.bin"), destinations=("a", "b"), max_bytes=1)
    assert "has no a.bin nor b.bin" in refusal(hub, tmp_path, absent)
    hub.refuse = {"/resolve/": (404, "EntryNotFound")}
    assert "deep/net.pth: not found" in refusal(hub, tmp_path)
    del hub.files[REPO]
    hub.refuse = {}
    assert "not found" in refusal(hub, tmp_path)


@pytest.mark.parametrize("where", ["/api/models/", "/resolve/"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, "GatedRepo"), "accept its terms at http.*hf auth login"),
        ((403, ""), "accept its terms"),
        ((401, ""), "wants a login.*hf auth login"),
        ((418, ""), "answered 418"),
    ],
)
def test_refusals_name_the_next_step(
    hub: Any, tmp_path: Path, where: str, answer: tuple[int, str], says: str
) -> None:
    hub.refuse = {where: answer}
    assert re.search(says, refusal(hub, tmp_path))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_retried_then_given_up(hub: Any, tmp_path: Path, status: int) -> None:
    hub.refuse = {"/resolve/": (status, "")}
    assert f"answered {status}" in refusal(hub, tmp_path)
    assert len(hub.asked("/resolve/")) == 1 + QUICK.retries


def test_an_unreachable_endpoint_is_one_line(hub: Any, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = refusal(hub, tmp_path, endpoint=endpoint)
    assert message.startswith(f"{endpoint}: cannot be reached")
    assert "--endpoint URL" in message


@pytest.mark.parametrize("endpoint", ["not an address", "ftp://host", "http://", "/tmp"])
def test_an_endpoint_that_is_no_address_is_named(hub: Any, tmp_path: Path, endpoint: str) -> None:
    assert "--endpoint" in refusal(hub, tmp_path, endpoint=endpoint)


@pytest.mark.parametrize("listing", [b"<html>welcome</html>", b"[]", b'{"siblings": 3}', b'{"sha": "x"}'])
def test_something_that_is_no_hub_is_named(hub: Any, tmp_path: Path, listing: bytes) -> None:
    hub.listing = listing
    assert "--endpoint" in refusal(hub, tmp_path)


# --- ModelScope ---------------------------------------------------------------------------------------------


def test_modelscope_is_fetched_resumed_and_given_no_token(hub: Any, tmp_path: Path) -> None:
    hub.cut_after = [3000]
    paths = fetch(hub, tmp_path, WEIGHTS, SETTINGS, publisher="modelscope")
    assert [path.read_bytes() for path in paths] == [CONTENT, CONFIG]
    asked = [headers for path, headers in hub.requests if path.endswith("/repo")]
    assert [headers.get("range", "")[:6] for headers in asked] == ["", "bytes=", ""]
    assert not any("authorization" in headers for _, headers in hub.requests)


def test_modelscope_is_bounded_and_checked_as_the_hub_is(hub: Any, tmp_path: Path) -> None:
    def refused(*sources: Source) -> str:
        return refusal(hub, tmp_path, *sources, publisher="modelscope")

    assert "at most 100 expected" in refused(replace(WEIGHTS, max_bytes=100))
    assert "not the expected version" in refused(pinned("0" * 64))
    assert not [path for path, _ in hub.requests if path.endswith("/repo")]
    hub.corrupt = set(WEIGHTS.paths)
    assert "does not match its published hash" in refused()
    hub.corrupt, hub.omit_hashes = set(), True
    assert "publishes no hash" in refused()
    for listing in (b"<html>", b"[]", b'{"Data": null}', b'{"Data": {"Files": [{"Type": "blob", "Path": 3}]}}'):
        hub.listing = listing
        assert "no hub answers there" in refused()
    hub.listing = b" " * (QUICK.max_listing_bytes + 1)
    assert "lists more files" in refused()
    hub.files.clear()
    assert "not found" in refused()


def test_files_to_fetch_by_hand_have_an_address_at_each_publisher(hub: Any, tmp_path: Path) -> None:
    for publisher, start in (("hub", "https://huggingface.co/"), ("modelscope", "https://www.modelscope.cn/api/v1/")):
        missing = missing_sources(tmp_path, RELEASED, publisher)
        assert len(missing) == len(RELEASED)
        assert all(address.startswith(start) for address, _ in missing)
        assert all(path.is_relative_to(tmp_path) for _, path in missing)


def test_offline_mode_is_respected(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refusal(hub, tmp_path)
    assert hub.requests == []


def test_the_environment_names_a_mirror(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint + "/")
    fetch(hub, tmp_path, endpoint=None)
    assert hub.requests


def test_a_mirror_gets_no_token_unless_given_one(hub: Any, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "a")
    assert not any("authorization" in headers for _, headers in hub.requests)
    fetch(hub, tmp_path / "b", token="hf_for_the_mirror")
    assert hub.requests[-1][1]["authorization"] == "Bearer hf_for_the_mirror"


def test_a_full_disk_is_one_line_and_resumable(hub: Any, tmp_path: Path) -> None:
    with _files_of_at_most(4000):
        assert "cannot be written (File too large)" in refusal(hub, tmp_path)
    assert partials(tmp_path) == [4000]
    fetch(hub, tmp_path)
    assert (tmp_path / "personalive/net.pth").read_bytes() == CONTENT
    assert content_requests(hub)[-1]["range"] == "bytes=4000-"


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Let the system fail every write beyond ``size`` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_too_little_space_is_reported_before_fetching(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: usage(9, 0, 9))
    assert "still to fetch" in refusal(hub, tmp_path)
    assert content_requests(hub) == []


def test_a_folder_that_cannot_be_made_is_named(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(hub, tmp_path / "file")


def test_a_different_file_in_place_is_kept_and_named(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "personalive").mkdir()
    own = tmp_path / "personalive/net.pth"
    own.write_bytes(b"trained by myself")
    with pytest.raises(DownloadError, match="differs from the published file"):
        fetch(hub, tmp_path)
    assert own.read_bytes() == b"trained by myself"


def test_the_released_list_makes_a_whole_folder(tmp_path: Path) -> None:
    """Every required file of the layout has a source, each source stays inside the folder."""
    for source in RELEASED:
        assert len(source.paths) == len(source.destinations)
        for destination in source.destinations:
            assert not Path(destination).is_absolute()
            assert ".." not in Path(destination).parts
        target = tmp_path / source.destinations[-1]
        assert not target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    assert list(missing_files(tmp_path)) == []
    assert all((tmp_path / name).exists() for name in CONFIGS if name != MODEL_CONFIG)


def test_the_released_list_is_fetched_as_it_stands(hub: Any, tmp_path: Path) -> None:
    hub.files.clear()
    for source in RELEASED:
        if source.sha256 is None:
            hub.files.setdefault(source.repo, {})[source.paths[-1]] = json.dumps(source.paths).encode()
    open_ones = [source for source in RELEASED if source.sha256 is None]
    paths = fetch(hub, tmp_path, *open_ones)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [s.destinations[-1] for s in open_ones]
    assert list(missing_files(tmp_path)) == []
