import numpy as np
import pytest
from PIL import Image

from hrn.data.images import read_picture
from hrn.data.resize import Bicubic, imresize
from hrn.errors import HRNError
from hrn.inference.folder import Job, enlarge_file, jobs


@pytest.fixture
def folder(tmp_path, image):
    for name in ("a.png", "sub/b c.jpg", "sub/deep/ä€.webp", "sub/d.bmp", "sub/d.png", "sub/notes.txt", ".hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image") if path.suffix == ".txt" else Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_names_and_subfolders_are_kept(folder, tmp_path):
    found = {
        str(j.source.relative_to(folder)): str(j.target.relative_to(tmp_path)) for j in jobs(folder, tmp_path / "out")
    }
    assert found == {
        "a.png": "out/a.png",
        "sub/b c.jpg": "out/sub/b c.png",
        "sub/deep/ä€.webp": "out/sub/deep/ä€.png",
        "sub/d.bmp": "out/sub/d.bmp.png",
        "sub/d.png": "out/sub/d.png.png",
    }


def test_no_two_images_share_a_target(tmp_path):
    for name in ("a.png", "a.jpg", "a.jpg.png", "b.png"):
        (tmp_path / name).touch()
    found = {j.source.name: j.target.name for j in jobs(tmp_path, tmp_path / "out")}
    assert len(set(found.values())) == 4
    assert found["b.png"] == "b.png"


def test_earlier_results_are_not_enlarged_again(folder):
    (folder / "sample/x2").mkdir(parents=True)
    (folder / "sample/x2/a.png").touch()
    assert len(jobs(folder, folder / "sample/x4", leave_out=folder / "sample")) == 5
    assert len(jobs(folder, folder / "sample/x4")) == 6


def test_what_a_format_cannot_hold_is_said(tmp_path, image):
    Image.fromarray(np.dstack([image, image[..., :1]])).save(tmp_path / "a.png")
    said = enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.jpg"), Bicubic(2))
    assert "without its transparency, which .jpg does not have" in said
    Image.fromarray(np.zeros((1, 9000, 3), np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(HRNError, match=r"18000x2 pixels are too many for \.webp"):
        enlarge_file(Job(tmp_path / "wide.png", tmp_path / "wide.webp"), Bicubic(2))


def test_a_single_file_and_another_suffix(folder, tmp_path):
    assert jobs(folder / "a.png", tmp_path, ".jpg") == [Job(folder / "a.png", tmp_path / "a.jpg")]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(HRNError, match=r"no images in .*: looked for \.png"):
        jobs(tmp_path, tmp_path)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_each_kind_of_image(tmp_path, rng, image, mode, suffix):
    """130 rows, so that the bicubic takes three strips."""
    tall = np.tile(image, (3, 1, 1))[:130]
    alpha = rng.integers(0, 256, tall.shape[:2], dtype=np.uint8)
    picture = (
        Image.fromarray(np.dstack([tall, alpha])).convert(mode)
        if mode in ("LA", "RGBA")
        else Image.fromarray(tall).convert(mode)
    )
    picture.save(tmp_path / "in.tif")
    done = []
    said = enlarge_file(Job(tmp_path / "in.tif", tmp_path / f"out{suffix}"), Bicubic(2), done.append)
    assert f"{tall.shape[1]}x130 -> {2 * tall.shape[1]}x260" in said
    assert sum(done) == 130 * tall.shape[1]
    assert len(done) == 3
    read, sr = read_picture(tmp_path / "in.tif"), read_picture(tmp_path / f"out{suffix}")
    assert sr.grey == (mode in ("L", "LA", "1")) or suffix == ".webp"  # which has no grey
    assert abs(sr.rgb.astype(int) - imresize(read.rgb, scale=2)).max() <= 1  # grey goes through RGB and back
    if mode in ("LA", "RGBA"):
        assert (sr.alpha == imresize(alpha, scale=2)).all()
    else:
        assert sr.alpha is None


def test_the_first_frame_is_said(tmp_path, image):
    frames = [Image.fromarray(np.roll(image, i * 9, 1)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert "the first of 3 frames" in enlarge_file(Job(tmp_path / "a.webp", tmp_path / "b.png"), Bicubic(2))
    assert (read_picture(tmp_path / "b.png").rgb == imresize(image, scale=2)).all()


def test_icc_profiles_are_kept(tmp_path, image):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "a.jpg", icc_profile=profile)
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        enlarge_file(Job(tmp_path / "a.jpg", tmp_path / f"b{suffix}"), Bicubic(2))
        assert read_picture(tmp_path / f"b{suffix}").icc_profile == profile
