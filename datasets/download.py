"""Download training data, test sets and the authors' weights from public URLs.

    python datasets/download.py div2k                        about 5 GB, into dataset/DIV2K
    python datasets/download.py set5 set14 b100 urban100     into dataset/Set5/HR ...
    python datasets/download.py checkpoint authors           into checkpoint/hrn_released

After an interruption, run the same command again: complete files are kept and partial downloads are resumed. Archives are
deleted after unpacking unless --keep is given. The images belong to their owners and are for research.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from hrn.cli import path_argument, run_cli
from hrn.data.images import list_images
from hrn.errors import HRNError
from hrn.fetch import ArchiveError, fetch, unpack
from hrn.locks import wait_for_lock

ROOT = Path(__file__).resolve().parents[1]

DIV2K = ("https://data.vision.ee.ethz.ch/cvl/DIV2K", "http://data.vision.ee.ethz.ch/cvl/DIV2K")
MD5 = {  # from torchSR, https://github.com/Coloquinte/torchSR
    "DIV2K_train_HR": "bdc2d9338d4e574fe81bf7d158758658",
    "DIV2K_train_LR_bicubic_X2": "9a637d2ef4db0d0a81182be37fb00692",
    "DIV2K_train_LR_bicubic_X3": "ad80b9fe40c049a07a8a6c51bfab3b6d",
    "DIV2K_train_LR_bicubic_X4": "76c43ec4155851901ebbe8339846d93d",
    "DIV2K_valid_HR": "9fcdda83005c5e5997799b69f955ff88",
    "DIV2K_valid_LR_bicubic_X2": "1512c9a3f7bde2a1a21a73044e46b9cb",
}


@dataclass(frozen=True)
class Archive:
    """An archive to download and unpack."""

    name: str
    urls: tuple[str, ...]
    place: Callable[[str], str | None]
    """Maps a member's path to its path in the data set's folder, or to None to skip it."""
    subfolder: str
    """The folder of the images, relative to that of the data set."""
    checksum: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set with alternative sources, each of which is a complete list of archives."""

    folder: str
    alternatives: tuple[tuple[Archive, ...], ...]
    counts: dict[str, int]
    """The number of images in each folder of the complete data set."""


def div2k(scales: list[int]) -> Source:
    """Return DIV2K from its home page: HR and bicubic LR images of the training and validation parts."""
    names = [
        f"DIV2K_{part}_{kind}" for part in ("train", "valid") for kind in ("HR", *(f"LR_bicubic_X{s}" for s in scales))
    ]
    archives = tuple(
        Archive(
            f"{name}.zip",
            tuple(f"{home}/{name}.zip" for home in DIV2K),
            lambda member: member if member.endswith(".png") else None,
            name.replace("_X", "/X"),
            f"md5:{MD5[name]}" if name in MD5 else None,
        )
        for name in names
    )
    counts = {}
    for part, count in (("train", 800), ("valid", 100)):
        counts[f"DIV2K_{part}_HR"] = count
        counts |= {f"DIV2K_{part}_LR_bicubic/X{s}": count for s in scales}
    return Source("DIV2K", (archives,), counts)


def test_set(folder: str, count: int, hub: str, box: str) -> Source:
    """Return the HR images of a test set from E. Siow's copies or from J.-B. Huang's SelfExSR archives.

    From SelfExSR, the HR images for x4 are used at all scales, because Urban100's HR images for x2 have half the size.

    Args:
        folder: the name of the test set and of its folder.
        count: the number of images.
        hub: the name of E. Siow's copy on the Hugging Face Hub.
        box: the identifier of the SelfExSR archive.
    """
    siow = Archive(
        f"{hub}_HR.tar.gz",
        (f"https://huggingface.co/datasets/eugenesiow/{hub}/resolve/main/data/{hub}_HR.tar.gz",),
        lambda member: f"HR/{usual_name(m[1])}" if (m := re.search(r"([^/\\]+\.png)$", member)) else None,
        "HR",
    )
    huang = Archive(
        f"{folder}_SelfExSR.zip",
        (f"https://uofi.box.com/shared/static/{box}.zip",),
        lambda member: (
            f"HR/{usual_name(m[1])}.png" if (m := re.search(r"image_SRF_4/(img_\d+)_SRF_4_HR\.png$", member)) else None
        ),
        "HR",
    )
    return Source(folder, ((siow,), (huang,)), {"HR": count})


def usual_name(name: str) -> str:
    """Return the usual name of an image: Urban100's are called img001.png, but img_001.png in both archives."""
    return name.replace("img_", "img")


SETS: dict[str, Callable[[list[int]], Source]] = {
    "div2k": div2k,
    "set5": lambda scales: test_set("Set5", 5, "Set5", "kfahv87nfe8ax910l85dksyl2q212voc"),
    "set14": lambda scales: test_set("Set14", 14, "Set14", "igsnfieh4lz68l926l8xbklwsnnk8we9"),
    "b100": lambda scales: test_set("B100", 100, "BSD100", "qgctsplb8txrksm9to9x01zfa4m61ngq"),
    "urban100": lambda scales: test_set("Urban100", 100, "Urban100", "65upg43jjd0a4cwsiqgl6o6ixube6klm"),
}
CHECKPOINTS = {
    "authors": (
        "hrn_released/hrn_x4.pth",
        tuple(
            f"https://{host}/checkpoint/hrn/hrn_x4.pth"
            for host in ("raw.githubusercontent.com/zhangyongqin/HRN/HEAD", "github.com/zhangyongqin/HRN/raw/HEAD")
        ),
    )
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="+", metavar="WHAT", help=f"{', '.join(SETS)}, or: checkpoint {', '.join(CHECKPOINTS)}"
    )
    parser.add_argument(
        "--root", type=path_argument, default=ROOT / "dataset", help="folder for data sets (default: dataset/)"
    )
    parser.add_argument(
        "--ckpt_dir",
        type=path_argument,
        default=ROOT / "checkpoint",
        help="folder for checkpoints (default: checkpoint/)",
    )
    parser.add_argument(
        "--scales",
        type=int,
        nargs="+",
        choices=(2, 3, 4),
        default=[2, 3, 4],
        metavar="S",
        help="scales of DIV2K's LR images (default: 2 3 4)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30,
        help="seconds without data after which an attempt fails (default: %(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the archives after unpacking")
    args = parser.parse_args(argv)
    if not args.timeout > 0:
        parser.error("--timeout must be above 0")
    known, kind = (CHECKPOINTS, "checkpoint") if args.what[0] == "checkpoint" else (SETS, "data set")
    args.names = args.what[1:] if kind == "checkpoint" else args.what
    if not args.names:
        parser.error(f"name at least one {kind}: {', '.join(known)}")
    unused = ("root", "scales", "keep") if kind == "checkpoint" else ("ckpt_dir",)
    for flag in unused if "div2k" in args.names or kind == "checkpoint" else (*unused, "scales"):
        if getattr(args, flag) != parser.get_default(flag):
            parser.error(f"--{flag} has no effect on {' '.join(args.names)}")
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"unknown {kind} {', '.join(unknown)}: choose from {', '.join(known)}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed = []
    for name in args.names:
        try:
            if args.what[0] == "checkpoint":
                get_checkpoint(name, args)
            else:
                get_set(SETS[name](args.scales), args)
        except HRNError as error:
            failed.append(name)
            print(f"{name}: {error}\n", file=sys.stderr)
    if failed:
        raise HRNError(f"incomplete: {', '.join(failed)}. Run the same command again to resume.")
    return 0


def get_set(source: Source, args: argparse.Namespace) -> None:
    """Download and unpack a data set from the first source that works.

    Raises:
        HRNError: no source works. The message explains how to download the data set manually.
    """
    folder = args.root / source.folder
    if not missing(folder, source.counts):
        print(f"{folder}: complete")
        return
    reasons = []
    for archives in source.alternatives:
        try:
            for archive in archives:
                get_archive(archive, folder, source.counts, args)
        except HRNError as error:
            reasons.append(str(error))
            continue
        if still := missing(folder, source.counts):
            reasons.append(f"{archives[0].name} is incomplete: {still}")
            break  # another source may name its images differently; do not mix the two
        print(f"{folder}: complete")
        return
    urls = "\n".join(f"  {a.urls[0]}" for archives in source.alternatives for a in archives)
    expected = "\n".join(f"  {folder / sub}/  {count} images" for sub, count in source.counts.items())
    raise HRNError(
        "\n".join(reasons)
        + f"\nTo download manually, open\n{urls}\nor use any copy of these images. Unpack them to\n{expected}"
    )


def get_archive(archive: Archive, folder: Path, counts: dict[str, int], args: argparse.Namespace) -> None:
    """Download and unpack an archive, unless its images exist already. Raises HRNError."""
    path = folder / archive.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(folder / f".{archive.name}.unpacking.lock"):  # another process may do the same
            if not missing(folder, {archive.subfolder: counts[archive.subfolder]}):
                return
            fetch(archive.urls, path, checksum=archive.checksum, timeout=args.timeout)
            try:
                count = unpack(path, folder, archive.place)
            except ArchiveError:
                path.unlink()  # the next run downloads it again
                raise
            print(f"{folder}: {count} files from {archive.name}")
            if not args.keep:
                path.unlink()
    except OSError as error:
        raise HRNError(f"cannot write {folder}: {error.strerror or error}") from None


def missing(folder: Path, counts: dict[str, int]) -> str:
    """Describe which images of a data set are missing; empty if it is complete."""
    found = {sub: len(list_images(folder / sub)) if (folder / sub).is_dir() else 0 for sub in counts}
    return ", ".join(
        f"{folder / sub} holds {found[sub]} of {count} images" for sub, count in counts.items() if found[sub] < count
    )


def get_checkpoint(name: str, args: argparse.Namespace) -> None:
    """Download a checkpoint and check its contents. Raises HRNError."""
    from hrn.checkpoint import load_checkpoint  # torch is slow to import

    file, urls = CHECKPOINTS[name]
    path = args.ckpt_dir / file
    try:
        fetched = fetch(urls, path, timeout=args.timeout)
    except HRNError as error:
        raise HRNError(f"{error}\nTo download manually, open {urls[-1]}\nand save the file as {path}") from None
    try:
        checkpoint = load_checkpoint(path)
    except HRNError:
        if fetched:
            path.unlink()
        raise
    scales = ", ".join(f"x{s}" for s in checkpoint.config.scales)
    print(f"{path}: {checkpoint.model_name}, {scales}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
