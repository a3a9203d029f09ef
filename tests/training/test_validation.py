"""Scoring in threads, as on a GPU, gives what scoring in order gives."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from hrn.data.benchmark import find_test_set
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.evaluation import evaluate
from hrn.inference.enlarger import Enlarger
from hrn.model import build_model
from hrn.training import validation
from hrn.training.validation import FAILED, MAX_PSNR, SHOWN_IMAGES, score_set, validate


@pytest.fixture
def network(small):
    return build_model(small).eval()


@pytest.fixture
def threads(monkeypatch):
    """Score in this number of threads."""
    return lambda count: monkeypatch.setattr(validation, "SCORING_THREADS", {"cpu": count})


def test_threads_give_the_same_scores_and_pictures(network, h5_path, threads, monkeypatch):
    """Three images are scored at the same time, and one is enlarged at a time."""
    sets, found = [find_test_set(h5_path, 2)] * 2, []
    enlarge, score, together, busy = (
        Enlarger.__call__,
        evaluate.score,
        threading.Barrier(3, timeout=60),
        threading.Lock(),
    )

    def enlarge_alone(*args):
        assert busy.acquire(blocking=False)
        try:
            return enlarge(*args)
        finally:
            busy.release()

    def score_together(*args):
        together.wait()
        return score(*args)

    for count in (0, 3):
        if count:
            monkeypatch.setattr(Enlarger, "__call__", enlarge_alone)
            monkeypatch.setattr(evaluate, "score", score_together)
        threads(count)
        shown = []
        scores = validate(network, sets, Processes(), show=lambda *picture, shown=shown: shown.append(picture))
        found.append((scores, shown))
    (scores, shown), (scores_in_threads, shown_in_threads) = found
    assert scores == scores_in_threads
    assert len(shown) == 2 * SHOWN_IMAGES
    for (name, image), (other_name, other) in zip(shown, shown_in_threads, strict=True):
        assert name == other_name
        assert np.array_equal(image, other)


def test_a_stop_drops_the_images_that_have_not_begun(network, h5_path, threads, monkeypatch):
    """The first image is scored before the stop. The scores of others wait until the pool shuts down."""
    threads(2)
    test_set, begun, shut_down = find_test_set(h5_path, 2), [], threading.Event()
    first, enlarge, score = test_set.images[0].load(2).hr, Enlarger.__call__, evaluate.score

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            shut_down.set()
            super().shutdown(wait=wait)

    def record(*args):
        begun.append(args)
        return enlarge(*args)

    def score_first(sr, hr, *more):
        assert np.array_equal(hr, first) or shut_down.wait(60)
        return score(sr, hr, *more)

    monkeypatch.setattr(validation, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(Enlarger, "__call__", record)
    monkeypatch.setattr(evaluate, "score", score_first)
    assert validate(network, [test_set] * 2, Processes(), stop=lambda: 15) is None
    assert 1 <= len(begun) <= 3


@pytest.mark.parametrize("mine", [True, False])
def test_a_failure_in_one_process_is_one_in_all(network, h5_path, monkeypatch, mine):
    sent = []

    class First(Processes):
        def max(self, value):
            sent.append(value)
            return FAILED if len(sent) == 2 else value

    def fail(*args):
        raise HRNError("unreadable")

    if mine:
        monkeypatch.setattr(evaluate, "score", fail)
    with pytest.raises(HRNError, match="unreadable" if mine else "another process"):
        validate(network, [find_test_set(h5_path, 2)], First(count=2))
    assert sent == ([FAILED] if mine else [0, 0])


def test_an_error_in_a_thread_is_raised(network, h5_path, threads, monkeypatch):
    threads(2)

    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(evaluate, "score", fail)
    with pytest.raises(ZeroDivisionError):
        validate(network, [find_test_set(h5_path, 2)], Processes())


def test_an_odd_number_of_images_is_divided(network, h5_path):
    class Alone(Processes):
        """One of two processes, whose partner never answers."""

        def max(self, value):
            return value

    test_set = find_test_set(h5_path, 2)
    three = replace(test_set, images=test_set.images[:3])
    options = {"shave": 2, "stop": lambda: 0, "show": None}
    first, second = (score_set(network, three, Alone(rank=rank, count=2), **options) for rank in (0, 1))
    assert [first[0], second[0], first[1]] == score_set(network, three, Processes(), **options)
    assert (len(first), len(second)) == (2, 1)


def test_a_perfect_image_does_not_make_the_mean_infinite(network, h5_path, monkeypatch):
    monkeypatch.setattr(evaluate, "score", lambda *args: {"psnr_y": math.inf, "ssim_y": 1.0, "psnr_rgb": math.inf})
    assert validate(network, [find_test_set(h5_path, 2)], Processes()) == {"psnr_y": MAX_PSNR, "ssim_y": 1.0}
