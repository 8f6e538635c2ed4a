"""Who a program is inside, whatever numbers its image has stored."""

import os

import pytest

from fimd.launch.identity import Identity, resolve

ROOT = Identity(0, 0, "root", "/root", "/bin/sh")


def resolved(*, root: bool = False, **stored: str) -> Identity:
    return resolve(root=root, stored=stored, environment={}, shell="/bin/sh")


@pytest.mark.parametrize("number", ["", "x", "-1", "٣", "4294967295", "9" * 11, "9" * 5000])
def test_a_number_that_is_no_users_is_left_out(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    who = resolved(UID=number, GID=number)
    assert (who.uid, who.gid) == (1234, os.getgid())


def test_root_is_root_however_its_number_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    assert resolved(UID="0") == resolved(UID="00", GID="7") == resolved(root=True) == ROOT
    assert resolved(UID="7", GID="4294967294").gid == 4294967294


def test_root_of_the_machine_is_root_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert resolved(UID="7") == ROOT
