"""Signals during training."""

import multiprocessing
import os
import signal
import time

import pytest

from hrn.training.signals import StopSignal, ignore_signals, kill_workers_on_error


@pytest.fixture
def handlers():
    """Set handlers whatever process started pytest, and restore those of the test process."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in StopSignal.SIGNALS}
    yield current()
    for number, handler in before.items():
        signal.signal(number, handler)


def current():
    return {number: signal.getsignal(number) for number in StopSignal.SIGNALS}


def test_a_second_signal_takes_effect_at_once(handlers):
    with StopSignal(repeated=False) as request:
        assert request.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
        assert all(current()[number] == handlers[number] for number in (signal.SIGTERM, signal.SIGINT))
    assert current() == handlers


def test_repeated_signals_are_recorded(handlers):
    with StopSignal(repeated=True) as request:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
            assert request.signal == number
    assert current() == handlers


def test_the_end_of_a_terminal_may_be_signalled_twice(handlers):
    with StopSignal(repeated=False) as request:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert request.signal == signal.SIGHUP
    assert current() == handlers


def test_an_ignored_interrupt_is_recorded(handlers):
    """A shell script starts its background processes with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal(repeated=False) as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT


def test_the_end_of_a_terminal_is_ignored_under_nohup(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal(repeated=True) as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.signal == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_workers_ignore_signals(handlers):
    ignore_signals(0)
    for number in StopSignal.SIGNALS:
        os.kill(os.getpid(), number)


def start_twice(process):
    process.start()
    process.start()


def test_an_error_kills_only_processes_that_the_body_started():
    mine, loader = (multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,)) for _ in range(2))
    mine.start()
    try:
        with pytest.raises(AssertionError, match="cannot start a process twice"), kill_workers_on_error():
            start_twice(loader)
        assert not loader.is_alive()
        assert mine.is_alive()
    finally:
        mine.kill()
        mine.join()
