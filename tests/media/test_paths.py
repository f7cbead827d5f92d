"""Inputs and outputs refused before any work, each in one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from personalive.errors import InputError, OutputError
from personalive.media.paths import check_input, check_output, partial_beside, temporary_beside


def _one_line(error: pytest.ExceptionInfo, *names: object) -> str:
    text = str(error.value)
    assert "\n" not in text
    for name in names:
        assert str(name) in text
    return text


def test_input_that_is_missing_empty_or_a_folder_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path, cause in (
        (tmp_path / "none.mp4", "no such file"),
        (empty / "under.mp4", "no such file"),
        (empty, "empty"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(InputError) as error:
            check_input(path)
        assert cause in _one_line(error, path)
    with pytest.raises(InputError) as error:
        check_input("nul\0byte")
    _one_line(error)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="ordinary file"):
        check_input(tmp_path / "pipe.mp4")
    with pytest.raises(OutputError, match="ordinary file"):
        check_output(tmp_path / "pipe.mp4")


def test_input_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # permission bits do not bind an administrator
    with pytest.raises(InputError) as error:
        check_input(path)
    assert "permissions" in _one_line(error, path)


def test_output_is_resolved_and_leaves_nothing(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert check_output(tmp_path / "link" / "out.MP4") == real.resolve() / "out.MP4"
    assert list(real.iterdir()) == []


@pytest.mark.parametrize("kind", ["same", "symlink", "hardlink", "dotted"])
def test_output_that_is_an_input_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"video")
    out = tmp_path / "out.mp4"
    if kind == "symlink":
        out.symlink_to(source)
    elif kind == "hardlink":
        out.hardlink_to(source)
    elif kind == "same":
        out = source
    else:
        (tmp_path / "sub").mkdir()
        out = tmp_path / "sub" / ".." / "in.mp4"
    with pytest.raises(OutputError) as error:
        check_output(out, inputs=[tmp_path / "other.png", source])
    assert "input" in _one_line(error, out, source)
    assert source.read_bytes() == b"video"


def test_output_folders_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create it") as error:
        check_output(tmp_path / "missing" / "out.mp4")
    _one_line(error, tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match=r"should end in \.mp4; name it out\.mp4"):
        check_output(tmp_path / "out.avi")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        check_output(tmp_path / "file" / "out.mp4")
    with pytest.raises(OutputError):
        check_output(tmp_path / ("x" * 300 + ".mp4"))


def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = Path("/proc") if os.geteuid() == 0 else tmp_path / "locked"
    if folder != Path("/proc"):
        folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="nothing can be written") as error:
        check_output(folder / "out.mp4")
    _one_line(error, folder)


def test_names_beside_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a video.mp4"
    assert temporary_beside(target).parent == tmp_path
    assert temporary_beside(target) != temporary_beside(target)
    assert partial_beside(target).name == "a video.partial.mp4"
    partial_beside(target).touch()
    assert partial_beside(target).name == "a video.partial-2.mp4"
