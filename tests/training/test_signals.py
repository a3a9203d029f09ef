"""Signals during training."""

import os
import signal

import pytest

from hrn.training.signals import StopSignal, ignore_signals


@pytest.fixture
def handlers():
    """Record the handlers of the test process, and restore them."""
    before = {number: signal.getsignal(number) for number in StopSignal.SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def current():
    return {number: signal.getsignal(number) for number in StopSignal.SIGNALS}


def test_a_second_signal_takes_effect_at_once(handlers):
    with StopSignal(repeated=False) as request:
        assert request.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
        assert current() == handlers
    assert current() == handlers


def test_repeated_signals_are_recorded(handlers):
    with StopSignal(repeated=True) as request:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert request.signal == number
    assert current() == handlers


def test_workers_ignore_signals(handlers):
    ignore_signals(0)
    for number in StopSignal.SIGNALS:
        os.kill(os.getpid(), number)
