import pickle

import h5py
import numpy as np
import pytest

from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.errors import HRNError


def patches(path, scales=(2,), patch_size=16, seed=0, length=60, batch_size=4):
    return PatchDataset(H5Pairs(path, scales), patch_size=patch_size, batch_size=batch_size, length=length, seed=seed)


def test_lr_and_hr_patches_belong_together(h5_path):
    """LR of the fixture is every s-th pixel of HR, so in a patch pair too, up to the flips that they share."""
    for s in (2, 3, 4):
        dataset = patches(h5_path, (s,))
        for i in range(30):
            lr, hr = (p.permute(1, 2, 0).numpy() for p in dataset[i])
            assert lr.shape == (16, 16, 3)
            assert hr.shape == (16 * s, 16 * s, 3)
            # after a flip the kept pixel of each s x s block is another one of its corners
            corners = [hr[y::s, x::s] for y in (0, s - 1) for x in (0, s - 1)]
            assert any((lr == corner).all() for corner in corners)


def test_patches_are_a_function_of_seed_and_index(h5_path):
    a, b, other = patches(h5_path), patches(h5_path), patches(h5_path, seed=1)
    order = [7, 3, 59, 3, 0]
    assert all((a[i][1] == b[i][1]).all() for i in order)
    assert any((a[i][1].shape != other[i][1].shape) or (a[i][1] != other[i][1]).any() for i in range(10))


def test_every_pass_takes_each_image_once(h5_path):
    dataset = patches(h5_path)
    passes = [[dataset.image_of(12 * p + i) for i in range(12)] for p in range(3)]
    assert all(sorted(p) == list(range(12)) for p in passes)
    assert passes[0] != passes[1] != passes[2]


def test_a_batch_shares_its_scale_and_all_scales_come(h5_path):
    dataset = patches(h5_path, (2, 3, 4), length=400)
    scales = [[dataset.scale_of(4 * b + i) for i in range(4)] for b in range(100)]
    assert all(len(set(batch)) == 1 for batch in scales)
    counts = [sum(batch[0] == s for batch in scales) for s in (2, 3, 4)]
    assert min(counts) > 15
    assert dataset[0][1].shape[1] == 16 * dataset.scale_of(0)


def test_all_eight_orientations_come(tmp_path):
    """One 8x8 image and one 8x8 patch: only the orientation is left to chance."""
    image = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["HR/0"], file["X2/0"] = image, image[::2, ::2]
    dataset = patches(tmp_path / "one.h5", (2,), patch_size=8, length=200)
    oriented = [np.rot90(m, k) for m in (image, np.fliplr(image)) for k in range(4)]
    found = [
        next(i for i, o in enumerate(oriented) if (dataset[j][1].permute(1, 2, 0).numpy() == o).all())
        for j in range(200)
    ]
    assert min(found.count(i) for i in range(8)) > 8


def test_opened_anew_in_each_process(h5_path):
    dataset = patches(h5_path)
    first = dataset[5]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.pairs._file is None
    assert (copy[5][0] == first[0]).all()


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
    ("edit", "message"),
    [
        (lambda f: f.pop("X4"), "has no group 'X4', only HR, X2, X3"),
        (lambda f: f.pop("X4/3"), "image X4/3 is missing"),
        (lambda f: replace(f, "X4/3", np.zeros((9, 9, 3), np.uint8)), "X4/3 is 9x9, but HR/3 of 120x96 needs 30x24"),
        (lambda f: replace(f, "HR/0", np.zeros((96, 120, 3), np.float32)), "HR/0 is float32 .* not uint8"),
        (lambda f: replace(f, "HR/0", np.zeros((96, 120), np.uint8)), "HR/0 is uint8 .* not uint8 \\(H, W, 3\\)"),
        (lambda f: [f.pop(f"HR/{i}") for i in range(12)], "holds no images"),
    ],
)
def test_broken_files(h5_path, edit, message):
    with pytest.raises(HRNError, match=message):
        H5Pairs(edited(h5_path, edit), (4,))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("bridge.png", "bridge"), ("bridge", "bridge"), ("photo v1.2", "photo v1.2"), ("a.tar.JPEG", "a.tar"),
        ("Ä€.webp", "Ä€"), (b"bridge.png", "bridge"), (np.bytes_(b"bridge.bmp"), "bridge"),
        ("", "3"), (".", "3"), ("..", "3"), ("../../evil", "3"), ("/etc/evil.png", "3"), ("..\\evil.png", "3"),
        ("C:evil", "3"), ("a\nb", "3"), (7, "3"), (np.arange(3), "3"), (h5py.Empty("S1"), "3"),
    ],
)  # fmt: skip
def test_names_can_name_files(h5_path, said, name):
    """They come from a file that anybody may have written."""
    edited(h5_path, lambda file: file["HR/3"].attrs.update(name=said))
    assert [H5Pairs(h5_path, (2,)).name(i) for i in (2, 3)] == ["2", name]


def test_keys_that_cannot_name_files(h5_path):
    def edit(file):
        for group in ("HR", "X2"):
            file[group].move("3", "..\\evil")

    pairs = H5Pairs(edited(h5_path, edit), (2,))
    assert pairs.name(pairs.keys.index("..\\evil")) == "11"


def test_damage_anywhere_is_an_error_in_words(tmp_path, rng):
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
    with pytest.raises(HRNError, match=r"a\.h5: not a readable h5 file"):
        H5Pairs(tmp_path / "a.h5", (2,))
    with pytest.raises(HRNError, match=r"no such h5 file: .*b\.h5\nMake it with"):
        H5Pairs(tmp_path / "b.h5", (2,))


def test_image_smaller_than_the_patch(h5_path):
    with pytest.raises(
        HRNError, match="HR/0 is 120x96, smaller than a patch of 48 LR pixels at x4; use --patch_size 24"
    ):
        patches(h5_path, (2, 4), patch_size=48)
