import pytest

from hrn.training.schedule import lr_at


def test_step_decay_is_the_released_one():
    rates = [lr_at(s, base=1e-4, max_steps=500_000) for s in (0, 199_999, 200_000, 399_999, 400_000)]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]


def test_cosine_with_warmup():
    def rate(step):
        return lr_at(step, base=1.0, max_steps=110, schedule="cosine", warmup=10)

    assert rate(0) == pytest.approx(0.1)
    assert rate(9) == rate(10) == 1
    assert rate(60) == pytest.approx(0.5)
    assert rate(110) == pytest.approx(0, abs=1e-12)
    assert all(rate(s) > rate(s + 1) for s in range(10, 110))
