import h5py
import numpy as np
import pytest

from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError


def test_keys_are_numbers_in_order(h5_path):
    assert H5Pairs(h5_path, (2,)).keys == [str(i) for i in range(12)]


def edited(path, edit):
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def replace(file, name, data):
    del file[name]
    file[name] = data


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda f: f.pop("X4"), "X4.*HR, X2, X3.*--scales"),
        (lambda f: f.pop("X4/3"), "X4/3"),
        (lambda f: replace(f, "X4/3", np.zeros((9, 9, 3), np.uint8)), "X4/3.*9x9.*HR/3.*120x96.*30x24"),
        (lambda f: replace(f, "HR/0", np.zeros((96, 120, 3), np.float32)), "HR/0.*float32"),
        (lambda f: replace(f, "HR/0", np.zeros((96, 120), np.uint8)), "HR/0"),
        (lambda f: [f.pop(f"HR/{i}") for i in range(12)], "carn.h5"),
    ],
)
def test_broken_files(h5_path, edit, named):
    with pytest.raises(HRNError, match=named):
        H5Pairs(edited(h5_path, edit), (4,))


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("bridge.png", "bridge"), ("bridge", "bridge"), ("photo v1.2", "photo v1.2"), ("a.tar.JPEG", "a.tar"),
        ("Ä€.webp", "Ä€"), (b"bridge.png", "bridge"), (np.bytes_(b"bridge.bmp"), "bridge"),
        ("", "3"), (".", "3"), ("..", "3"), ("../../evil", "3"), ("/etc/evil.png", "3"), ("..\\evil.png", "3"),
        ("C:evil", "3"), ("a\nb", "3"), (7, "3"), (np.arange(3), "3"), (h5py.Empty("S1"), "3"),
    ],
)  # fmt: skip
def test_names_are_valid_file_names(h5_path, stored, name):
    """The h5 file may come from an untrusted source."""
    edited(h5_path, lambda file: file["HR/3"].attrs.update(name=stored))
    assert [H5Pairs(h5_path, (2,)).name(i) for i in (2, 3)] == ["2", name]


def test_fingerprints_tell_files_apart(h5_path, tmp_path):
    def fingerprint(edit):
        copy = tmp_path / "copy.h5"
        copy.write_bytes(h5_path.read_bytes())
        return H5Pairs(edited(copy, edit), (2,)).fingerprint()

    first = H5Pairs(h5_path, (2,)).fingerprint()
    assert fingerprint(lambda file: None) == first
    assert fingerprint(lambda file: file.pop("X4")) == first  # not read at x2
    changes = [
        lambda file: file["HR/0"].write_direct(np.zeros((96, 120, 3), np.uint8)),
        lambda file: file["X2/11"].write_direct(np.zeros((48, 60, 3), np.uint8)),
        lambda file: [file[group].pop("11") for group in file],
    ]
    assert len({first, *map(fingerprint, changes)}) == 4


def test_keys_that_are_not_file_names(h5_path):
    def edit(file):
        for group in ("HR", "X2"):
            file[group].move("3", "..\\evil")

    pairs = H5Pairs(edited(h5_path, edit), (2,))
    assert pairs.name(pairs.keys.index("..\\evil")) == "11"


def test_damage_anywhere_is_an_hrn_error(tmp_path, rng):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for i in range(3):
            hr = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
            file[f"HR/{i}"], file[f"X2/{i}"] = hr, hr[::2, ::2]
            file[f"HR/{i}"].attrs["name"] = f"{i}.png"
    good = path.read_bytes()
    steps = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 20):
            bad[place] = rng.integers(256)
        path.write_bytes(bad)
        step = "open"
        try:
            pairs = H5Pairs(path, (2,))
            step = "name"
            for i in range(len(pairs)):
                pairs.name(i)
            step = "read"
            pairs.verify()
        except HRNError as error:
            assert str(path) in str(error)  # noqa: PT017
            steps.add(step)
    assert steps >= {"open", "name"}


def test_not_an_h5_file(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"not h5")
    with pytest.raises(HRNError, match=r"a\.h5"):
        H5Pairs(tmp_path / "a.h5", (2,))
    with pytest.raises(HRNError, match=r"b\.h5.*div2h5\.py"):
        H5Pairs(tmp_path / "b.h5", (2,))


def test_an_unreadable_image_is_found_at_the_start(h5_path):
    with h5py.File(h5_path, "a") as file:
        del file["HR/7"]
        file.create_dataset("HR/7", data=np.zeros((96, 120, 3), np.uint8), chunks=(96, 120, 3), compression="gzip")
        where = file["HR/7"].id.get_chunk_info(0)
    pairs = H5Pairs(h5_path, (2,))
    pairs.verify()
    with h5_path.open("r+b") as raw:
        raw.seek(where.byte_offset)
        raw.write(b"\xff" * where.size)
    pairs.verify(0, 2)  # the image is in the share of the other process
    with pytest.raises(HRNError, match="HR/7"):
        pairs.verify(1, 2)
    with pytest.raises(HRNError, match="HR/7"):
        pairs.read("HR", 7)


def test_an_image_that_claims_a_huge_size(h5_path):
    """A data set that was never written takes no space in the file."""
    with h5py.File(h5_path, "a") as file:
        del file["HR/0"]
        file.create_dataset("HR/0", (30_000, 30_000, 3), np.uint8, chunks=(64, 64, 3))
    with pytest.raises(HRNError, match=r"HR/0.*pixels"):
        H5Pairs(h5_path, (2,))
