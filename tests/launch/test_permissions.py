"""What each permission shows of the host."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fimd.flatimage.settings import Permission
from fimd.launch import permissions
from fimd.launch.permissions import Caller, grant

ENVIRONMENT = {
    "HOME": "/home/me",
    "DISPLAY": ":0",
    "XAUTHORITY": "/run/x",
    "WAYLAND_DISPLAY": "wayland-1",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/7/bus,guid=x;tcp:host=/no",
}


def binds(
    permission: Permission, environment: Mapping[str, str] = ENVIRONMENT, *, root: bool = False
) -> list[tuple[str, str]]:
    """Options and paths; source and target are the same."""
    granted = grant(permission, Caller(environment, "/run/user/7", root)).binds
    assert all(bind.source == bind.target for bind in granted)
    assert all(bind.option.endswith("-try") for bind in granted)
    return [(bind.option.removesuffix("-try"), bind.source) for bind in granted]


@pytest.mark.parametrize(
    ("permission", "option", "paths"),
    [
        (Permission.HOME, "--bind", ["/home/me"]),
        (Permission.MEDIA, "--bind", ["/media", "/run/media", "/mnt"]),
        (Permission.WAYLAND, "--bind", ["/run/user/7/wayland-1"]),
        (Permission.XORG, "--ro-bind", ["/run/x"]),
        (Permission.UDEV, "--bind", ["/run/udev"]),
        (Permission.INPUT, "--dev-bind", ["/dev/input", "/dev/uinput"]),
        (Permission.USB, "--dev-bind", ["/dev/bus/usb", "/dev/usb"]),
        (
            Permission.NETWORK,
            "--ro-bind",
            ["/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"],
        ),
        (Permission.SHM, "--dev-bind", ["/dev/shm"]),
        (Permission.DEV, "--dev-bind", ["/dev"]),
    ],
)
def test_paths(permission: Permission, option: str, paths: list[str]) -> None:
    assert binds(permission) == [(option, path) for path in paths]


def test_buses_come_with_what_their_clients_know_the_machine_by() -> None:
    machine = ("--ro-bind", "/etc/machine-id")
    assert binds(Permission.DBUS_USER) == [("--bind", "/run/user/7/bus"), machine]
    assert binds(Permission.DBUS_SYSTEM) == [("--bind", "/run/dbus/system_bus_socket"), machine]


def test_the_x_authority_is_where_x_has_it_when_no_variable_says() -> None:
    environment = {"HOME": "/home/me", "DISPLAY": ":0"}
    assert binds(Permission.XORG, environment) == [("--ro-bind", "/home/me/.Xauthority")]
    granted = grant(Permission.XORG, Caller(environment, "/run/user/7", root=False))
    assert dict(granted.variables)["XAUTHORITY"] == "/home/me/.Xauthority"


def test_audio() -> None:
    granted = grant(Permission.AUDIO, Caller({}, "/run/user/7", root=False))
    assert granted.variables == (("PULSE_SERVER", "unix:/run/user/7/pulse/native"),)
    assert binds(Permission.AUDIO) == [
        ("--bind", "/run/user/7/pulse/native"),
        ("--bind", "/run/user/7/pipewire-0"),
        ("--bind", "/dev/snd"),
        ("--bind", "/proc/asound"),
        ("--dev-bind", "/dev/dsp"),
    ]


@pytest.mark.parametrize("permission", [Permission.HOME, Permission.XORG, Permission.WAYLAND])
def test_what_the_caller_does_not_have_is_left_out(permission: Permission) -> None:
    assert binds(permission, {}) == []
    assert binds(Permission.XORG, {"DISPLAY": ":0"}) == []


def test_no_home_for_root_and_no_root_for_a_home() -> None:
    assert binds(Permission.HOME, root=True) == []
    for home in ("/", "//", "/.", "relative", ""):
        assert binds(Permission.HOME, {"HOME": home}) == []


def test_a_home_behind_a_link_is_where_the_link_leads_as_well(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    shown = [("--bind", str(link)), ("--bind", str(real))]
    assert binds(Permission.HOME, {"HOME": str(link)}) == shown


def test_nothing_that_a_permission_shows_is_the_hosts_root() -> None:
    everything = Permission(0)
    for permission in Permission:
        everything |= permission
    assert "/" not in {path for _, path in binds(everything)}


def test_all_of_dev_comes_last() -> None:
    assert binds(Permission.DEV | Permission.GPU | Permission.SHM)[-1] == ("--dev-bind", "/dev")


def test_what_the_nvidia_driver_keeps_outside_of_the_kernel_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev, libraries, link = tmp_path / "dev", tmp_path / "lib", tmp_path / "link"
    for directory in (dev, libraries):
        directory.mkdir()
    link.symlink_to(libraries)
    for name in ("libGLX_nvidia.so.0", "libcuda.so.1", "libc.so.6", "libgstcuda.so", "nvidia"):
        (libraries / name).touch()
    monkeypatch.setattr(permissions, "_DEVICES", str(dev))
    monkeypatch.setattr(permissions, "_NVIDIA_PLACES", (str(libraries), str(link), "/nowhere"))
    assert binds(Permission.GPU) == [("--dev-bind", "/dev/dri")]
    (dev / "nvidia0").touch()
    assert binds(Permission.GPU) == [
        ("--dev-bind", "/dev/dri"),
        ("--dev-bind", f"{dev}/nvidia0"),
        ("--ro-bind", f"{libraries}/libGLX_nvidia.so.0"),
        ("--ro-bind", f"{libraries}/libcuda.so.1"),
        ("--ro-bind", f"{libraries}/nvidia"),
    ]
