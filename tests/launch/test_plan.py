"""The launch plan: what stands where in it, and what the client is to expand."""

import os
from collections.abc import Mapping
from typing import Any

from fimd.flatimage.settings import Binding, BindingType, Permission, Unshare
from fimd.images.image import ImageFacts
from fimd.launch.place import Place
from fimd.launch.plan import LaunchPlan, launch_plan
from fimd.launch.request import StartRequest

HOME = {"HOME": "/home/me", "USER": "me", "PATH": "/usr/bin"}


def plan(
    mode: str = "exec", app: str = "/tmp/fim/app/u7", root: bool = False, **facts: Any
) -> LaunchPlan:
    stored: Mapping[str, Any] = {"environment": {}, "boot": ("bash",), **facts}
    image = ImageFacts(
        path="/images/app",
        reserved_offset=4096,
        layers=(),
        overlay=None,
        casefold="off",
        warnings=(),
        **stored,
    )
    place = Place(
        image=image.path,
        data="/images/.app.data",
        layers="/images/.app.data/layers",
        directory=f"{app}/instance/7",
        app=app,
        global_directory="/tmp/fim",
        pid=7,
        reserved_offset=4096,
        join=("nsenter", "--"),
    )
    request = StartRequest("/images/app", 7, mode=mode, root=root, environment=HOME)
    return launch_plan(place, "/merged", request, image)


def options(made: LaunchPlan) -> tuple[str, ...]:
    """What bubblewrap gets before the command."""
    start = made.argv.index("bwrap")
    return made.argv[start : made.argv.index("--", start)]


def test_the_sandbox_has_the_writable_view_for_its_root_and_nothing_of_the_hosts() -> None:
    made = plan()
    assert made.argv[:3] == ("nsenter", "--", "bwrap")
    given = options(made)
    at = given.index("--bind")
    assert given[at : at + 3] == ("--bind", "/merged", "/")
    sources = {given[i + 1] for i, word in enumerate(given) if "bind" in word}
    assert "/" not in sources
    assert made.expand_argv == ()
    assert made.expand_environment == ()
    assert not made.expand_identity


def test_bindings_come_before_permissions_and_those_before_namespaces() -> None:
    made = plan(
        bindings=(
            Binding(BindingType.RO, "$HOME/a", "/a"),
            Binding(BindingType.DEV, "/dev/x", "/b c"),
        ),
        permissions=Permission.UDEV | Permission.DEV,
        unshare=Unshare.PID | Unshare.USER,
    )
    given = options(made)
    tail = (
        *("--ro-bind-try", "$HOME/a", "/a", "--dev-bind-try", "/dev/x", "/b c"),
        *("--bind-try", "/run/udev", "/run/udev", "--dev-bind-try", "/dev", "/dev"),
        *("--unshare-user-try", "--unshare-pid"),
    )
    assert given[-len(tail) :] == tail
    assert [made.argv[index] for index in made.expand_argv] == ["$HOME/a"]


def test_stored_variables_override_all_but_who_the_program_is() -> None:
    made = plan(environment={"A": "1", "TERM": "dumb", "FIM_PID": "9", "XDG_RUNTIME_DIR": "/x"})
    expected = {"A": "1", "TERM": "dumb", "FIM_PID": "9"}
    assert made.environment.items() >= expected.items()
    assert made.environment["XDG_RUNTIME_DIR"] == f"/run/user/{os.getuid()}"


def test_what_has_to_be_expanded_is_left_to_the_client() -> None:
    stored = {"A": "$B", "$K": "v", "PS1": r"\u $", "P": "plain words", "": "nameless"}
    made = plan(environment=stored, boot=("$PROGRAM", "$HOME"), mode="boot")
    assert made.expand_environment == (("A", "$B"), ("$K", "v"))
    assert {"A", "$K", ""}.isdisjoint(made.environment)
    assert made.environment["PS1"] == r"\u $"
    assert [made.argv[index] for index in made.expand_argv] == ["$PROGRAM"]
    assert made.argv[-2:] == ("$PROGRAM", "$HOME")
    assert plan(environment={"SHELL": "$HOME/sh"}).expand_identity


def test_what_bears_on_the_hosts_programs_is_set_inside_only() -> None:
    made = plan(environment={"PATH": "/in:$PATH", "LD_PRELOAD": "/in.so"})
    assert options(made)[-6:] == (
        "--setenv",
        "PATH",
        "/in:$PATH",
        "--setenv",
        "LD_PRELOAD",
        "/in.so",
    )
    assert [made.argv[index] for index in made.expand_argv] == ["/in:$PATH"]
    assert "LD_PRELOAD" not in made.environment
    assert made.environment["PATH"].startswith("/tmp/fim/app/u7/bin:/usr/bin:")


def test_a_runtime_tree_outside_of_tmp_is_shown_read_only() -> None:
    assert "--ro-bind" not in options(plan())
    given = options(plan(app="/var/fim/app/u7"))
    shown = [given[i + 1] for i, word in enumerate(given) if word == "--ro-bind"]
    assert shown == [f"/var/fim/app/u7/{name}" for name in ("bin", "sbin", "instance/7")]


def test_a_name_cannot_add_a_line_to_passwd() -> None:
    if os.getuid() == 0:
        made = plan(environment={"SHELL": "/bin/sh\nevil:x:0:0"})
    else:
        made = plan(environment={"USER": "a:b\nevil:x:0:0"})
    assert made.files["passwd"].count("\n") == 1
    assert made.files["passwd"].count(":") == 6


def test_the_prompt_is_quoted() -> None:
    assert plan().files["bashrc"] == 'export PS1="[flatimage-${FIM_DIST,,}] \\W > "\n'
    made = plan(environment={"PS1": 'a "b" \\u > '})
    assert made.files["bashrc"] == 'export PS1="a \\"b\\" \\u > "\n'
