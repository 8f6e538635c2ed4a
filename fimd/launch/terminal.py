"""What the terminal of a process sends to it and to its program alike."""

import signal
from typing import Final

_SENT: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def terminal_signals(pid: int) -> tuple[int, ...]:
    """Return the signals by which a terminal ends its foreground processes, without ignored ones.

    A terminal sends them to the program of an instance and to its bubblewrap. Bubblewrap would die
    at once and take the program along, which may have its own answer to Ctrl-C: so bubblewrap is to
    ignore them. A process without a terminal gets a signal for itself alone, and ends by it.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        session, terminal = int(fields[3]), int(fields[4])  # proc(5): session and tty_nr
        if not terminal:
            return ()
        with open(f"/proc/{pid}/status", "rb") as file:
            [ignored] = (line.split()[1] for line in file if line.startswith(b"SigIgn:"))
    except (FileNotFoundError, ProcessLookupError):
        return ()  # it has ended: the start will find out
    # a hang-up is told to the session's leader alone, so that must not ignore it
    sent = _SENT[1:] if session == pid else _SENT
    return tuple(int(number) for number in sent if not int(ignored, 16) >> (number - 1) & 1)
