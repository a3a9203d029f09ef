"""Scoring in threads, as on a GPU, gives what scoring in order gives."""

import threading

import numpy as np
import pytest

from hrn.data.benchmark import find_test_set
from hrn.distributed import Processes
from hrn.evaluation import evaluate
from hrn.inference.enlarger import Enlarger
from hrn.model import build_model
from hrn.training import validation
from hrn.training.validation import SHOWN_IMAGES, validate


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
    threads(2)
    enlarge, begun = Enlarger.__call__, []

    def record(*args):
        begun.append(args)
        return enlarge(*args)

    monkeypatch.setattr(Enlarger, "__call__", record)
    assert validate(network, [find_test_set(h5_path, 2)] * 2, Processes(), stop=lambda: 15) is None
    assert 1 <= len(begun) <= 12


def test_an_error_in_a_thread_is_raised(network, h5_path, threads, monkeypatch):
    threads(2)

    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(evaluate, "score", fail)
    with pytest.raises(ZeroDivisionError):
        validate(network, [find_test_set(h5_path, 2)], Processes())
