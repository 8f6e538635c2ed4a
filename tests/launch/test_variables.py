"""What a program's variables are inside, and who sets them."""

import os
import subprocess
from collections.abc import Mapping

import pytest

from fimd.launch import variables
from fimd.launch.variables import Inside, inside


def shown(made: Inside, *names: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """What a program has, whose shell has read the script."""
    script = made.script + "".join(f'printf "%s\\0" "${name}"; ' for name in names)
    done = subprocess.run(
        ["sh", "-c", script, "sh", "a", "b c"],
        env={"PATH": os.environ["PATH"], **(environment or {}), **made.plain},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return os.fsdecode(done.stdout).split("\0")[:-1]


def test_stored_values_override_what_is_given_and_nothing_overrides_who_one_is() -> None:
    made = inside({"A": "1", "B": "1"}, {"B": "$X", "HOME": "/evil"}, {"HOME": "/h"}, {"X": "2"})
    assert made == Inside({"A": "1", "B": "2", "HOME": "/h"}, "")
    words = list(made.words())
    assert words[words.index("A") - 1 :][:3] == ["--setenv", "A", "1"]


def test_names_are_taken_as_they_are_and_what_is_none_is_left_out() -> None:
    stored = {"$X": "1", "$(touch /x)": "2", "": "3", "a=b": "4", "a b": "5"}
    assert inside({}, stored, {}, {"X": "Y"}).plain == {"$X": "1", "$(touch /x)": "2", "a b": "5"}


def test_commands_are_for_the_shell_inside_and_see_what_is_there() -> None:
    stored = {
        "A": "$(echo $INSIDE) $X",
        "B": "<$A>",
        "C": '`echo "$A"`',
        "D": "$(printf 'x\n\n')",
        "E": "$(exit 3)its",
        "F": "$(if)",
        "a-b": "$(no)",
        "ARGUMENTS": "$(echo $#)",
    }
    made = inside({"INSIDE": "in"}, stored, {}, {"X": "caller's"})
    assert made.plain["a-b"] == "$(no)"
    assert shown(made, "A", "C", "D", "E", "F", "ARGUMENTS", "_fimd") == [
        *("in caller's", "in caller's", "x", "its", "$(if)", "2", "")
    ]


def test_the_shells_words_are_as_before() -> None:
    made = inside({}, {"A": "$(echo x)"}, {}, {})
    script = made.script + 'printf "%s|" "$0" "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "n", "a", "b c"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "n|a|b c|"


def test_what_is_more_than_bubblewrap_takes_is_set_by_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variables, "_MOST", 2)
    made = inside({}, {"A": "1", "B": "2", "C": "it's $X\n", "a-b": "4"}, {}, {"X": "x"})
    assert made.plain == {"A": "1", "B": "2", "a-b": "4"}
    assert shown(made, "C") == ["it's $X\n"]
