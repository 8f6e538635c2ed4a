import signal

import pytest

from fimctl.jobs import _Interrupt


def test_the_first_ctrl_c_cuts_no_message_in_two() -> None:
    with _Interrupt() as interrupt:
        assert not interrupt.came
        signal.raise_signal(signal.SIGINT)
        assert interrupt.came


def test_the_second_ctrl_c_ends_a_client_whose_daemon_does_not_answer() -> None:
    with _Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_means_what_it_did_before_once_the_job_is_over() -> None:
    with _Interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
