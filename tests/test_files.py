import os

import pytest

from hrn.errors import HRNError
from hrn.files import atomic_write, write_text


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 83 + ".txt"])
def test_the_longest_file_names(tmp_path, name):
    assert 252 <= len(os.fsencode(name)) <= 255
    write_text(tmp_path / name, "written")
    assert (tmp_path / name).read_text() == "written"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_target_of_a_link_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk/file.txt")
    for text in ("first", "second"):  # the target does not exist at first
        write_text(tmp_path / "link", text)
        assert (tmp_path / "disk/file.txt").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    """Not even with the same process number, as in two containers."""
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
        assert {p.read_text() for p in tmp_path.iterdir()} == {"first", "second"}
    assert (tmp_path / "a").read_text() == "first"  # finished last


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(HRNError, match="it is a folder"):
        write_text(tmp_path, "text")
