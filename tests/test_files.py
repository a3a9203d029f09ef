import os

import pytest

from hrn.files import write_text


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 83 + ".txt"])
def test_the_longest_file_names(tmp_path, name):
    assert 252 <= len(os.fsencode(name)) <= 255
    write_text(tmp_path / name, "written")
    assert (tmp_path / name).read_text() == "written"
    assert len(list(tmp_path.iterdir())) == 1
