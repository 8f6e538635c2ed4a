import contextlib
import json
import multiprocessing
import os
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimd.flatimage.errors import (
    BusyImageError,
    ImageError,
    ReadOnlyImageError,
    SettingsError,
    SettingTooLargeError,
)
from fimd.flatimage.file import exclusive, open_image, write_at
from fimd.flatimage.layout import Kind, Layout, find_layout
from fimd.flatimage.reserved import (
    BINDINGS,
    BOOT,
    CASEFOLD,
    DESKTOP,
    ENVIRONMENT,
    ICON,
    NOTIFY,
    OVERLAY,
    PERMISSIONS,
    REMOTE,
    UNSHARE,
    Field,
    Settings,
    read_field,
    read_settings,
    update_field,
    write_field,
)
from fimd.flatimage.settings import (
    ICON_DATA_LIMIT,
    Binding,
    BindingType,
    Boot,
    Casefold,
    Desktop,
    Icon,
    Integration,
    Overlay,
    Permission,
    Unshare,
    encode_desktop,
    without,
)

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build, Sample

MIB = 1 << 20
FIELDS = (PERMISSIONS, NOTIFY, OVERLAY, CASEFOLD, DESKTOP, BOOT, ICON, ENVIRONMENT, BINDINGS)
ALL_FIELDS: tuple[Field[Any], ...] = (*FIELDS, REMOTE, UNSHARE)


def table(sample: "Sample", offset: int, size: int) -> bytes:
    data = sample.path.read_bytes()
    return data[sample.reserved_offset + offset : sample.reserved_offset + offset + size]


@pytest.mark.parametrize("kind", ["script", "elf-v2", "elf-v1"])
def test_an_image_never_configured_has_everything_unset(build: "Build", kind: str) -> None:
    sample = build(kind)
    with open_image(sample.path) as fd:
        assert read_settings(fd, find_layout(fd)) == Settings()


# Offsets, sizes and texts are FlatImage's own, written out here once more.
@pytest.mark.parametrize(
    ("field", "value", "offset", "stored"),
    [
        (PERMISSIONS, Permission.HOME | Permission.OPTICAL, 0, b"\x01\x40" + bytes(6)),
        (NOTIFY, True, 8, b"\x01"),
        (OVERLAY, Overlay.UNIONFS, 9, b"\x08"),
        (CASEFOLD, Casefold.ON, 10, b"\x01"),
        (CASEFOLD, Casefold.PRESERVE, 10, b"\x02"),
        (
            DESKTOP,
            Desktop("My App", ("Audio", "Game"), frozenset({Integration.ICON, Integration.ENTRY})),
            11,
            b'{\n  "categories": [\n    "Audio",\n    "Game"\n  ],\n  "integrations": [\n'
            b'    "ENTRY",\n    "ICON"\n  ],\n  "name": "My App"\n}\0',
        ),
        (
            BOOT,
            Boot("bash", ("-c", 'echo "x"')),
            4107,
            b'{\n  "args": [\n    "-c",\n    "echo \\"x\\""\n  ],\n  "program": "bash"\n}\0',
        ),
        (BOOT, Boot("bash"), 4107, b'{\n  "args": [],\n  "program": "bash"\n}\0'),
        (ICON, Icon("png", b"\x89PNG"), 12299, b"png\0\x89PNG\0"),
        (
            ENVIRONMENT,
            {"b": "2", "B": "é", "a": "$HOME"},
            1060875,
            '{\n  "B": "é",\n  "a": "$HOME",\n  "b": "2"\n}\0'.encode(),
        ),
        (
            BINDINGS,
            (Binding(BindingType.DEV, "/dev/x", "/y"),),
            2109451,
            b'{\n  "0": {\n    "dst": "/y",\n    "src": "/dev/x",\n    "type": "dev"\n  }\n}\0',
        ),
        (REMOTE, "https://x/y", 3158027, b'{\n  "url": "https://x/y"\n}\0'),
        (UNSHARE, Unshare.PID | Unshare.CGROUP, 3162123, b"\x24\x00"),
    ],
)
@pytest.mark.parametrize("kind", ["script", "elf-v2"])
def test_each_setting_is_stored_where_and_as_flatimage_has_it(
    build: "Build", kind: str, field: Field[Any], value: object, offset: int, stored: bytes
) -> None:
    sample = build(kind)
    before = bytearray(sample.path.read_bytes())
    sample.put(field, value)
    assert sample.get(field) == value
    start = sample.reserved_offset + offset
    before[start : start + len(stored)] = stored
    if field is ICON:
        struct.pack_into("<Q", before, start + MIB - 8, 4)
    assert sample.path.read_bytes() == before


def test_a_v1_image_keeps_four_settings_in_its_own_places(build: "Build") -> None:
    sample = build("elf-v1")
    sample.put(PERMISSIONS, Permission.GPU)
    sample.put(NOTIFY, True)
    sample.put(DESKTOP, Desktop("app"))
    sample.put(ICON, Icon("svg", b"<svg/>"))
    assert table(sample, 0, 10) == b"\x00\x04" + bytes(6) + b"\x01{"
    assert table(sample, MIB, 10) == b"svg\0<svg/>"
    assert table(sample, 2 * MIB - 8, 8) == struct.pack("<Q", 6)
    with open_image(sample.path) as fd:
        assert read_settings(fd, find_layout(fd)) == Settings(
            permissions=Permission.GPU,
            notify=True,
            desktop=Desktop("app"),
            icon=Icon("svg", b"<svg/>"),
        )


def test_what_a_v1_image_keeps_in_its_layers_is_refused_with_the_place(build: "Build") -> None:
    sample = build("elf-v1")
    with pytest.raises(SettingsError, match=r"fim/config/boot\.json"):
        sample.put(BOOT, Boot("x"))
    with pytest.raises(SettingsError, match=r"fim/config/casefold\.json"):
        sample.get(CASEFOLD)


def test_a_shorter_value_leaves_nothing_of_the_longer_one(build: "Build") -> None:
    sample = build("script")
    sample.put(ENVIRONMENT, {"SECRET": "x" * 20_000})
    sample.put(ENVIRONMENT, {"A": "1"})
    assert not any(table(sample, ENVIRONMENT.offset + 20, MIB - 20))
    sample.put(ENVIRONMENT, {})
    assert not any(table(sample, 0, 4 * MIB))


def test_categories_are_stored_sorted() -> None:
    assert json.loads(encode_desktop(Desktop("x", ("b", "C", "a"))))["categories"] == [
        "C",
        "a",
        "b",
    ]


def test_unknown_permission_bits_are_kept(build: "Build") -> None:
    sample = build("elf-v2")
    sample.patch(sample.reserved_offset, struct.pack("<Q", 1 << 40 | 3))
    with open_image(sample.path, writable=True) as fd:
        update_field(fd, find_layout(fd), PERMISSIONS, lambda old: without(old, Permission.HOME))
    assert table(sample, 0, 8) == struct.pack("<Q", 1 << 40 | 2)


def test_bindings_beyond_ten_keep_their_order(build: "Build") -> None:
    sample = build("script")
    bindings = tuple(Binding(BindingType.RO, f"/{n}", f"/{n}") for n in range(12))
    sample.put(BINDINGS, bindings)
    assert sample.get(BINDINGS) == bindings
    text = table(sample, BINDINGS.offset, 4096).partition(b"\0")[0]
    assert list(json.loads(text)) == sorted(map(str, range(12)))


@pytest.mark.parametrize(("field", "room"), [(BOOT, 8192), (REMOTE, 4096), (ENVIRONMENT, MIB)])
def test_json_has_to_be_shorter_than_its_field(
    build: "Build", field: Field[Any], room: int
) -> None:
    def value(size: int) -> object:
        if field is BOOT:
            return Boot("p" * (size - len('{\n  "args": [],\n  "program": ""\n}')))
        if field is REMOTE:
            return "u" * (size - len('{\n  "url": ""\n}'))
        return {"k": "v" * (size - len('{\n  "k": ""\n}'))}

    sample = build("script")
    sample.put(field, value(room - 1))
    assert sample.get(field) == value(room - 1)
    with pytest.raises(SettingTooLargeError, match="Not enough space to fit json data"):
        sample.put(field, value(room))
    assert sample.get(field) == value(room - 1)


def test_an_icon_may_fill_its_field_and_no_more(build: "Build") -> None:
    sample = build("script")
    data = random.Random(1).randbytes(ICON_DATA_LIMIT)
    sample.put(ICON, Icon("jpg", b"old"))
    sample.put(ICON, Icon("jpg", data))
    assert sample.get(ICON) == Icon("jpg", data)
    with pytest.raises(SettingTooLargeError, match="File is too large, '1048565' bytes"):
        sample.put(ICON, Icon("jpg", data + b"x"))
    with pytest.raises(SettingsError, match="Icon extension 'gif' is not supported"):
        sample.put(ICON, Icon("gif", b"x"))
    sample.put(ICON, None)
    assert sample.get(ICON) is None


def test_arguments_that_are_not_utf8_are_kept(build: "Build") -> None:
    sample = build("script")
    boot = Boot("prog", (os.fsdecode(b"\xff\xfe"), "\u20ac"))
    sample.put(BOOT, boot)
    assert sample.get(BOOT) == boot


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        (BOOT, b"{"),
        (BOOT, b"[]"),
        (BOOT, b"{}"),
        (BOOT, b'{"program": 5}'),
        (BOOT, b'{"program": "a", "args": "b"}'),
        (BOOT, b'{"program": "a", "args": [null]}'),
        (BOOT, b'{"program": "a\\u0000b"}'),
        (BOOT, b'{"program": "\\ud800"}'),
        (BOOT, b"x" * 8192),
        (BOOT, b"[" * 8000),
        (BOOT, b"9" * 8000),
        (BOOT, b"\xff\xff"),
        (ENVIRONMENT, b'{"a": {}}'),
        (ENVIRONMENT, b"[" * (MIB - 1)),
        (BINDINGS, b'{"x": {}}'),
        (BINDINGS, b'{"0": []}'),
        (BINDINGS, b'{"0": {"type": "none", "src": "/", "dst": "/"}}'),
        (BINDINGS, '{"\u0663": {"type": "ro", "src": "/", "dst": "/"}}'.encode()),
        (DESKTOP, b'{"name": "../x"}'),
        (DESKTOP, b'{"name": "x\\nExec=y"}'),
        (DESKTOP, b'{"name": "x", "integrations": ["RUN"]}'),
        (REMOTE, b'{"url": ["x"]}'),
        (ICON, b"png\0" + b"\xff" * (MIB - 4)),
        (ICON, b"../\0" + b"\xff" * 100 + bytes(MIB - 112) + struct.pack("<Q", 100)),
    ],
)
def test_a_damaged_setting_is_named_with_its_place(
    build: "Build", field: Field[Any], stored: bytes
) -> None:
    sample = build("script")
    offset = sample.reserved_offset + field.offset
    sample.patch(offset, stored)
    with pytest.raises(SettingsError, match=rf"'{field.name}' of .*script.*offset {offset}"):
        sample.get(field)


def test_an_overlay_of_an_unknown_number_is_unset(build: "Build") -> None:
    sample = build("elf-v2")
    sample.patch(sample.reserved_offset + 9, b"\x03")
    assert sample.get(OVERLAY) is None


@given(data=st.binary(max_size=300), field=st.sampled_from(ALL_FIELDS))
def test_no_content_of_a_field_gives_another_error(
    fuzzed: tuple[Path, Layout], data: bytes, field: Field[Any]
) -> None:
    path, layout = fuzzed
    with open_image(path, writable=True) as fd:
        old = os.pread(fd, 300, layout.reserved_offset + field.offset)
        write_at(fd, layout.reserved_offset + field.offset, data)
        with contextlib.suppress(SettingsError):
            read_field(fd, layout, field)
        write_at(fd, layout.reserved_offset + field.offset, old)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["name", "args", "program", "0", "type", "url"]) | st.text(), inner
        )
    ),
    max_leaves=12,
)


@given(
    value=JSON,
    field=st.sampled_from([f for f in ALL_FIELDS if f.is_text]),
)
def test_no_json_gives_another_error(value: object, field: Field[Any]) -> None:
    with contextlib.suppress(ValueError):
        field.decode(json.dumps(value).encode())


@given(
    value=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    )
)
def test_any_environment_comes_back_as_it_was(value: Mapping[str, str]) -> None:
    assert ENVIRONMENT.decode(ENVIRONMENT.encode(value)) == value


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layout]:
    path = tmp_path_factory.mktemp("fuzzed") / "image"
    path.write_bytes(bytes(4096 + 4 * MIB))
    return path, Layout(Kind.SCRIPT, 4096, 4 * MIB)


def test_two_that_add_at_once_both_succeed(build: "Build") -> None:
    sample = build("script")

    def add(name: str) -> None:
        with open_image(sample.path, writable=True) as fd:
            for number in range(20):
                update_field(
                    fd,
                    find_layout(fd),
                    ENVIRONMENT,
                    lambda old, key=f"{name}{number}": {**old, key: ""},  # type: ignore[misc]
                    wait=30,
                )

    children = [
        multiprocessing.get_context("fork").Process(target=add, args=(name,)) for name in "abc"
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len(sample.get(ENVIRONMENT)) == 60


def test_a_writer_waits_only_so_long(build: "Build") -> None:
    sample = build("script")
    with (
        open_image(sample.path, writable=True) as holder,
        exclusive(holder),
        open_image(sample.path, writable=True) as fd,
        pytest.raises(BusyImageError),
    ):
        write_field(fd, find_layout(fd), NOTIFY, True, wait=0.05)


def test_a_read_only_image_says_so(build: "Build") -> None:
    if os.getuid() == 0:
        pytest.skip("root may write any file")
    sample = build("script")
    sample.path.chmod(0o555)
    with pytest.raises(ReadOnlyImageError, match="cannot be changed"):
        sample.put(NOTIFY, True)


def test_reading_one_setting_reads_little(build: "Build", monkeypatch: pytest.MonkeyPatch) -> None:
    sample = build("script")
    sample.put(ENVIRONMENT, {"a": "b"})
    total = 0
    pread = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal total
        total += size
        return pread(fd, size, offset)

    with open_image(sample.path) as fd:
        layout = find_layout(fd)
        monkeypatch.setattr(os, "pread", counting)
        read_field(fd, layout, ENVIRONMENT)
        read_field(fd, layout, OVERLAY)
    assert total < 10_000


def test_a_table_cut_short_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(4096 + 100))
    layout = Layout(Kind.SCRIPT, 4096, 4 * MIB)
    with open_image(path) as fd:
        for field in ALL_FIELDS:
            with contextlib.suppress(ImageError):
                read_field(fd, layout, field)
        with pytest.raises(ImageError, match="incomplete"):
            read_field(fd, layout, ICON)
