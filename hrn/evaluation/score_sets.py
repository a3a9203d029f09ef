"""Score methods on test sets, and write images, tables, figures and reports."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hrn.cli import split_label
from hrn.data.benchmark import Pair, TestSet, find_test_set, photographs
from hrn.data.image_writer import write_image
from hrn.data.resize import Bicubic
from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError
from hrn.evaluation.crops import best_crop
from hrn.evaluation.evaluate import ImageResult, score_images
from hrn.evaluation.html_report import HtmlReport
from hrn.evaluation.metrics import score
from hrn.evaluation.report import (
    SetReport,
    image_table,
    library_versions,
    provenance,
    set_report,
    summary_table,
    write_reports,
)
from hrn.evaluation.sr_folder import SRFolder, read_result
from hrn.files import SCORES, UNFINISHED, write_text
from hrn.inference.enlarger import Enlarger
from hrn.inference.methods import Method
from hrn.model.summary import summarise

MAX_LISTED = 10
"""Number of missing and of unused files to name."""


@dataclass(frozen=True)
class ScoreSettings:
    """Options of scoring that are the same for all methods."""

    sample_dir: Path
    """Root folder of the output."""
    shave: int | None = None
    """Border in HR pixels to leave out; the scale by default."""
    raw_grey: Collection[str] = ()
    """Names of grey images to score on 0 to 255 instead of Y."""
    write_images: bool = True
    """Whether to write SR images and the comparison figure."""
    write_html: bool = False
    """Whether to write report.html."""


@dataclass(frozen=True)
class ExternalMethod:
    """Another program at one scale, of which only the SR images are known."""

    label: str
    """Name in tables and of the output folder."""
    scale: int
    folder: SRFolder

    @property
    def settings(self) -> dict[str, Any]:
        """The entries of scores.json."""
        return {"versions": library_versions(), "checkpoint": None, "results": str(self.folder.path)}


@dataclass(frozen=True)
class ScoringTask:
    """One method on one test set."""

    method: Method | ExternalMethod
    test_set: TestSet
    files: dict[str, Path] | None = None
    """Maps image names to SR files, for an :class:`ExternalMethod`."""

    @property
    def upscaler(self) -> Upscaler | None:
        """What enlarges the images; None for an :class:`ExternalMethod`."""
        return self.method.upscaler if isinstance(self.method, Method) else None

    def super_resolve(self, name: str, pair: Pair) -> np.ndarray:
        """Enlarge an LR image, or read its SR image."""
        if self.upscaler:
            return self.upscaler(pair.lr)
        return read_result(self.files[name], pair.hr.shape[:2], self.method.scale)


def score_test_sets(
    methods: Sequence[Method | ExternalMethod], paths: Sequence[Path], settings: ScoreSettings
) -> list[SetReport]:
    """Score all methods on all test sets, write the results and print the tables.

    Writes SAMPLE_DIR/LABEL/SET/xS/ with SR/, scores.csv, scores.json and comparison.png, and SAMPLE_DIR/LABEL/ with
    summary.md and, on request, report.html.

    Args:
        methods: one for each label and scale.
        paths: test sets; by default the photographs of scikit-image, which need no download.
        settings: scoring and output.

    Raises:
        HRNError: a test set or image cannot be found or read, or results are missing or do not fit.
    """
    tasks = plan_tasks(methods, paths, settings)
    page = HtmlReport(sum(len(task.test_set.images) for task in tasks)) if settings.write_html else None
    reports = [score_task(task, settings, page) for task in tasks]
    protocols = "\n".join(dict.fromkeys(f"x{r.scale}: {r.protocol}." for r in reports))
    summary = f"{summary_table(reports)}\n\n{protocols}\n"
    labels = list(dict.fromkeys(method.label for method in methods))
    for label in labels:
        write_text(settings.sample_dir / label / "summary.md", summary)
        if page:
            page.write(settings.sample_dir / label / "report.html", label)
    folders = ", ".join(f"{settings.sample_dir / label}/" for label in labels)
    print(f"\n{summary}\nResults in {folders}")
    return reports


def external_methods(folders: Sequence[str], scales: Sequence[int]) -> list[ExternalMethod]:
    """Return methods for folders of SR images that other programs made.

    Args:
        folders: each FOLDER or NAME=FOLDER; the folder's name is the default name.
        scales: scales of the SR images.

    Raises:
        HRNError: not a folder with images, two folders with the same name, or one called bicubic.
    """
    named: dict[str, SRFolder] = {}
    for text in folders:
        name, path = split_label(text)
        label = name or Path(path).resolve().name
        if label == "bicubic":  # the row that is computed here
            raise HRNError(f"--sr_dir {text}: the name bicubic is taken; name the folder, as in NAME=FOLDER")
        if label in named:
            raise HRNError(f"--sr_dir: two folders are called {label}; name them, as in NAME=FOLDER")
        named[label] = SRFolder(Path(path))
    return [ExternalMethod(label, scale, folder) for scale in scales for label, folder in named.items()]


def plan_tasks(
    methods: Sequence[Method | ExternalMethod], paths: Sequence[Path], settings: ScoreSettings
) -> list[ScoringTask]:
    """Pair all methods with all test sets, and check all test images before anything is scored.

    Raises:
        HRNError: a test set that cannot be found, an image that cannot be read or is too small, an unknown name in
            `raw_grey`, SR images of another program that are missing or ambiguous, or output that would go into a folder
            of SR images or of results of --input.
    """
    tasks = [ScoringTask(method, test_set) for method in methods for test_set in find_test_sets(paths, method.scale)]
    known = {image.name for task in tasks for image in task.test_set.images}
    if unknown := [name for name in settings.raw_grey if name not in known]:
        sets = ", ".join(dict.fromkeys(task.test_set.name for task in tasks))
        raise HRNError(f"--raw_grey {' '.join(unknown)}: no such image in {sets}")
    missing: list[str] = []
    for i, task in enumerate(tasks):
        _check_not_enlarged(_output_folder(task, settings))
        method, test_set = task.method, task.test_set
        if isinstance(method, ExternalMethod):
            folder = method.folder
            _check_output(folder.path, settings.sample_dir / method.label)
            names = [image.name for image in test_set.images]
            files = folder.match(names, method.scale, test_set.name)
            missing += [
                f"{folder.path}: {name} of {test_set.name} x{method.scale}" for name in names if name not in files
            ]
            tasks[i] = replace(task, files=files)
    _print_unused(tasks)
    if missing:
        names = "\n  ".join([*missing[:MAX_LISTED], *(["..."] if len(missing) > MAX_LISTED else [])])
        raise HRNError(
            f"{len(missing)} missing SR images:\n  {names}\nFor img001 at x4, names such as img001.png, img001x4.png and "
            "img001_x4_SR.png are recognised."
        )
    for (_, scale), test_set in {(task.test_set.name, task.test_set.scale): task.test_set for task in tasks}.items():
        test_set.verify(2 * (scale if settings.shave is None else settings.shave) + 1)
    return tasks


def _check_output(results: Path, output: Path) -> None:
    results, output = results.resolve(), output.resolve()
    if results == output or results in output.parents or output in results.parents:
        raise HRNError(
            f"--sr_dir {results}: scores would be written to {output}; name the folder, as in NAME={results}, or use "
            "another --sample_dir"
        )


def _print_unused(tasks: Sequence[ScoringTask]) -> None:
    """Print the files in folders of SR images that match no test image."""
    used: dict[SRFolder, set[Path]] = {}
    for task in tasks:
        if isinstance(task.method, ExternalMethod):
            used.setdefault(task.method.folder, set()).update((task.files or {}).values())
    for folder, files in used.items():
        if unused := folder.unused(files):
            more = ", ..." if len(unused) > MAX_LISTED else ""
            print(f"{folder.path}: {len(unused)} unmatched: {', '.join(unused[:MAX_LISTED])}{more}")


def find_test_sets(paths: Sequence[Path], scale: int) -> list[TestSet]:
    """Find the test sets at `paths`, or the photographs of scikit-image if there are no paths.

    Raises:
        HRNError: a set that cannot be found, two sets with the same name, or two images with the same name in a set.
    """
    sets = [find_test_set(path, scale) for path in paths] or [photographs(scale)]
    set_names = [test_set.name for test_set in sets]
    for test_set in sets:
        if set_names.count(test_set.name) > 1:
            raise HRNError(
                f"two test sets are called {test_set.name}; score them in separate runs with different --sample_dir"
            )
        test_set.check_names()
    return sets


def score_task(task: ScoringTask, settings: ScoreSettings, page: HtmlReport | None = None) -> SetReport:
    """Score one method on one test set; write its files and print its table.

    Args:
        task: from :func:`plan_tasks`.
        settings: scoring and output.
        page: HTML report to add the images to.
    """
    method, test_set, scale = task.method, task.test_set, task.method.scale
    folder = _output_folder(task, settings)
    shave = scale if settings.shave is None else settings.shave
    write_text(folder / UNFINISHED, "")
    header = _header(task)
    bicubic = None if isinstance(task.upscaler, Bicubic) else Bicubic(scale)
    warm_up(task.upscaler, test_set)
    ensemble = _EnsembleGain(task.upscaler, shave, settings.raw_grey)
    results, figure = [], None
    images = score_images(task.super_resolve, test_set, shave=shave, raw_grey=settings.raw_grey, bicubic=bicubic)
    if page:
        page.begin(header)
    total, title = len(test_set.images), f"{test_set.name} x{scale}"
    for result in tqdm(images, total=total, unit="image", desc=title, disable=None, leave=False):
        if task.upscaler is None:
            result = replace(result, seconds=None)
        elif settings.write_images:
            write_image(folder / "SR" / f"{result.name}.png", result.sr)
        if bicubic and (figure is None or _gain(result) > _gain(figure)):
            figure = result
        ensemble.add(result)
        if page:
            page.add(result)
        results.append(result.without_images())
    report = set_report(test_set, method.label, results, shave=shave, raw_grey=settings.raw_grey)
    if isinstance(task.upscaler, Enlarger):
        header["tiled"] = [result.name for result in results if task.upscaler.is_tiled(result.lr_size)]
    if page:
        page.end(report)
    write_reports(report, folder, header)
    (folder / UNFINISHED).unlink(missing_ok=True)
    print(f"\n{test_set.source}\n\n{image_table(report)}")
    if tiled := header.get("tiled"):
        print(f"\nprocessed in tiles, which changes scores slightly: {', '.join(tiled)}")
    ensemble.print()
    if figure and settings.write_images:
        draw_comparison(folder / "comparison.png", figure, method.label, shave)
    return report


def _output_folder(task: ScoringTask, settings: ScoreSettings) -> Path:
    """Return the folder for the images and scores of a test set."""
    return settings.sample_dir / task.method.label / task.test_set.name / f"x{task.method.scale}"


def _check_not_enlarged(folder: Path) -> None:
    """Raise HRNError if an output folder holds results of --input."""
    if (folder / "SR").is_dir() and not any((folder / name).exists() for name in (SCORES, UNFINISHED)):
        raise HRNError(
            f"{folder / 'SR'} holds images without scores, of --input or of an interrupted run; use another --sample_dir, or "
            "delete it"
        )


def _header(task: ScoringTask) -> dict[str, Any]:
    """Return the entries of scores.json that state what the scores depend on."""
    if isinstance(task.method, ExternalMethod):
        return task.method.settings
    if not isinstance(task.upscaler, Enlarger):
        return {**provenance("cpu"), **task.method.settings, "parameters": 0, "multi_adds": 0}
    cost = summarise(task.upscaler.config, task.upscaler.scale)[-1]
    size = {"parameters": cost.parameters, "multi_adds": cost.multi_adds}
    return {**provenance(task.upscaler.device), **task.method.settings, **size}


def warm_up(upscaler: Upscaler | None, test_set: TestSet) -> None:
    """Enlarge one image of each size before times are measured, on a GPU or with a compiled network.

    cuDNN chooses its algorithms for each size, and a network may be compiled for it.
    """
    if not isinstance(upscaler, Enlarger) or (upscaler.device.type == "cpu" and not upscaler.compiled):
        return
    seen = set()
    for image in test_set.images:
        lr = image.load(test_set.scale).lr
        if lr.shape not in seen:
            upscaler(lr)
        seen.add(lr.shape)


class _EnsembleGain:
    """PSNR-Y that the self-ensemble adds to each image; does nothing for methods without it."""

    def __init__(self, upscaler: Upscaler | None, shave: int, raw_grey: Collection[str]) -> None:
        uses_ensemble = isinstance(upscaler, Enlarger) and upscaler.ensemble
        self.single = upscaler.without_ensemble() if uses_ensemble else None
        self.shave, self.raw_grey = shave, raw_grey
        self.gains: list[float] = []

    def add(self, result: ImageResult) -> None:
        if self.single:
            scores = score(self.single(result.lr), result.hr, self.shave, result.name in self.raw_grey)
            gain = result.scores["psnr_y"] - scores["psnr_y"]
            if not math.isnan(gain):  # both perfect
                self.gains.append(gain)

    def print(self) -> None:
        if self.gains:
            mean, low, high = np.mean(self.gains), min(self.gains), max(self.gains)
            print(f"\nself-ensemble: {mean:+.3f} dB PSNR-Y, {low:+.3f} to {high:+.3f} by image")


def _gain(result: ImageResult) -> float:
    """Return the gain over bicubic interpolation in dB of PSNR-Y; minus infinity if both are perfect."""
    gain = result.scores["psnr_y"] - result.bicubic["psnr_y"]
    return -math.inf if math.isnan(gain) else gain


def draw_comparison(path: Path, result: ImageResult, label: str, shave: int) -> None:
    """Draw the crop of an image in which the method gains most over bicubic interpolation."""
    from hrn.evaluation.figures.compare import Comparison, compare  # matplotlib is slow to import

    crop, _ = best_crop(result.hr, result.bicubic_sr, result.sr)
    methods = {"bicubic": result.bicubic_sr, label: result.sr}
    compare(path, Comparison(result.name, result.hr, methods, crop, shave))
    print(f"\nfigure: {path}")
