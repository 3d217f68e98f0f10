from __future__ import annotations

import subprocess
import sys

import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.run.files import remove_leftovers, whole, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with whole(target) as part:
        part.write_text("text")
        assert part.name == "file.txt"
        assert not target.exists()
    assert target.read_text() == "text"
    assert names(target.parent) == ["file.txt"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail_halfway():
        with whole(target) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_replaces_an_older_one_as_a_whole(tmp_path):
    for files in (["a", "b"], ["c"]):
        with whole(tmp_path / "state") as part:
            part.mkdir()
            for name in files:
                (part / name).write_text(name)
    assert names(tmp_path) == ["state"]
    assert names(tmp_path / "state") == ["c"]


def test_a_disk_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "plain").write_text("in the way")
    with pytest.raises(UserError, match=r"plain/file.txt: cannot be written \(.+\); make room or mend the folder, then run"):
        write_whole(tmp_path / "plain" / "file.txt", "text")


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A limit on the size of files does what a full disk does: the write fails in the middle."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from lycoris_composite.run.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path(sys.argv[1]), 'x' * 5000)"
    )
    (tmp_path / "file.txt").write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file.txt")], capture_output=True, text=True, check=False)
    assert "UserError" in done.stderr
    assert "file.txt: cannot be written (File too large)" in done.stderr
    assert (tmp_path / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    with whole(tmp_path / "mine.txt") as part:
        part.write_text("text")
        left = part.parent.name
    for name in (left, left.replace("mine.txt", "mine.safetensors"), ".note.txt", "my~part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    remove_leftovers(tmp_path, "mine.safetensors")
    assert names(tmp_path) == sorted([left, ".note.txt", "mine.txt", "my~part"])
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([".note.txt", "mine.txt", "my~part"])
    remove_leftovers(tmp_path / "nowhere")


def test_two_programs_may_write_the_same(tmp_path):
    target = tmp_path / "latents.npz"
    with whole(target) as first, whole(target) as second:
        first.write_text("first, half")
        second.write_text("second")
    assert target.read_text() in ("first, half", "second")
    assert names(tmp_path) == ["latents.npz"]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "page.html").mkdir()
    (tmp_path / "page.html/precious.txt").write_text("mine")
    with pytest.raises(UserError, match="page.html: cannot be written"):
        write_whole(tmp_path / "page.html", "text")
    assert (tmp_path / "page.html/precious.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
