"""Frozen2: a struct laid out by a schema, its numbers packed to the bit, read where they lie.

Source: fbthrift's FrozenCompact layouts as DwarFS uses them. The schema gives for every type its
width and for every field its place, so the same metadata struct looks different in each image.
Only what is asked for is decoded; nothing here trusts a length or a position.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, Union

from fimd.dwarfs.errors import DamagedError, UnsupportedError
from fimd.dwarfs.thrift import Reader

_NEWEST_FILE_VERSION: Final = 1
_MAX_BITS: Final = 1 << 15  # offsets are 16-bit, so no layout can be wider


@dataclass(frozen=True, slots=True)
class Layout:
    """How one type is stored: in `size` bytes, or as `bits` bits where size is 0.

    `fields` gives, by field id, the number of the field's layout and its place: in bits from the
    start of this one. `byte_fields` names the fields that begin at a byte of their own.
    """

    size: int
    bits: int
    fields: dict[int, tuple[int, int]]
    byte_fields: frozenset[int]

    @property
    def stride(self) -> int:
        """Bits from one list item of this layout to the next."""
        return self.size * 8 or self.bits


@dataclass(frozen=True, slots=True)
class Schema:
    """The layouts of an image's metadata, and which of them is the whole."""

    layouts: tuple[Layout, ...]
    root: Layout


_NOTHING: Final = Layout(0, 0, {}, frozenset())


def parse_schema(data: bytes) -> Schema:
    """Decode and check the payload of a METADATA_V2_SCHEMA section."""
    reader = Reader(data)
    fields = reader.structure()
    if reader.position != len(data):
        raise DamagedError("invalid schema size: bytes follow the schema")
    if _integer(fields.get(4, 0)) > _NEWEST_FILE_VERSION:
        raise UnsupportedError(f"schema version {fields[4]} is not known")
    raw_layouts = fields.get(2)
    if not isinstance(raw_layouts, dict) or sorted(raw_layouts) != list(range(len(raw_layouts))):
        raise DamagedError("invalid layout key in schema")
    layouts = tuple(
        _parse_layout(raw_layouts[key], len(raw_layouts)) for key in sorted(raw_layouts)
    )
    root = _integer(fields.get(3))
    if not 0 <= root < len(layouts):
        raise DamagedError("invalid rootLayout in schema")
    return Schema(layouts, layouts[root])


def _parse_layout(raw: Any, count: int) -> Layout:
    if not isinstance(raw, dict):
        raise DamagedError("invalid layout in schema")
    size, bits = _integer(raw.get(1, 0)), _integer(raw.get(2, 0))
    raw_fields = raw.get(3, {})
    if size < 0 or bits < 0:
        raise DamagedError("negative size or negative bits in schema")
    if bits > _MAX_BITS or size > _MAX_BITS or not isinstance(raw_fields, dict):
        raise DamagedError("invalid layout in schema")
    fields = {}
    byte_fields = set()
    for field_id, field in raw_fields.items():
        if not isinstance(field, dict):
            raise DamagedError("invalid field in schema")
        layout, offset = _integer(field.get(1)), _integer(field.get(2, 0))
        if not 0 <= layout < count:
            raise DamagedError("invalid layoutId in field")
        fields[_integer(field_id)] = (layout, -offset if offset < 0 else offset * 8)
        if offset > 0:
            byte_fields.add(field_id)
    return Layout(size, bits, fields, frozenset(byte_fields))


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DamagedError("a number is missing in the schema or has the wrong type")
    return value


class Frozen:
    """A frozen struct's bytes with their schema, in which no list may have more than `most_items`.

    Items of no width take no room in the data, so its size alone does not bound them.
    """

    def __init__(self, data: bytes, schema: Schema, most_items: int) -> None:
        self.data = data
        self.schema = schema
        self.most_items = most_items

    @property
    def root(self) -> "View":
        """The whole struct."""
        return View(self, self.schema.root, 0, 0)

    def bits(self, position: int, width: int) -> int:
        """The number of `width` bits at bit `position`. Raises DamagedError outside of the data."""
        end = position + width
        if end > len(self.data) * 8:
            raise DamagedError("the metadata ends inside a field")
        raw = int.from_bytes(self.data[position >> 3 : (end + 7) >> 3], "little")
        return raw >> (position & 7) & (1 << width) - 1

    def check_range(self, start: int, size: int, what: str) -> None:
        """Refuse bytes that the data does not have."""
        if start + size > len(self.data):
            raise DamagedError(f"{what} lies outside of the metadata")


class View:
    """One struct inside of frozen data: `start` byte and `bit` counted from there.

    A field that the schema does not have is 0, false, empty or unset, as is one of no width.
    """

    __slots__ = ("_bit", "_frozen", "_layout", "_start")

    def __init__(self, frozen: Frozen, layout: Layout, start: int, bit: int) -> None:
        self._frozen = frozen
        self._layout = layout
        self._start = start
        self._bit = bit

    def struct(self, field_id: int) -> "View":
        """A nested struct."""
        place = self._layout.fields.get(field_id)
        if place is None:
            return View(self._frozen, _NOTHING, self._start, self._bit)
        number, offset = place
        layout = self._frozen.schema.layouts[number]
        if field_id in self._layout.byte_fields:
            return View(self._frozen, layout, self._start + offset // 8, self._bit)
        return View(self._frozen, layout, self._start, self._bit + offset)

    def integer(self, field_id: int, width: int = 64) -> int:
        """An unsigned number of at most `width` bits."""
        field = self.struct(field_id)
        bits = field._layout.bits  # noqa: SLF001 - its own class
        if bits > width:
            raise DamagedError(f"field {field_id} has {bits} bits, at most {width} are possible")
        if not bits:
            return 0
        return self._frozen.bits(field._start * 8 + field._bit, bits)  # noqa: SLF001

    def flag(self, field_id: int) -> bool:
        """A bool."""
        return self.integer(field_id) != 0

    def optional(self, field_id: int) -> "View | None":
        """The holder of an optional: ask it for field 2, the value. None where it is unset."""
        holder = self.struct(field_id)
        return holder if holder.flag(1) else None

    def optional_struct(self, field_id: int) -> "View | None":
        """An optional struct, None where it is unset."""
        holder = self.optional(field_id)
        return None if holder is None else holder.struct(2)

    def optional_integer(self, field_id: int, width: int = 64) -> int | None:
        """An optional number, None where it is unset."""
        holder = self.optional(field_id)
        return None if holder is None else holder.integer(2, width)

    def string_range(self, field_id: int) -> tuple[int, int]:
        """Where a string's bytes are in the data: start and size."""
        field = self.struct(field_id)
        size = field.integer(2)
        start = field._start + field.integer(1)  # noqa: SLF001
        self._frozen.check_range(start, size, "a string")
        return start, size

    def string(self, field_id: int) -> bytes:
        """A string's bytes."""
        start, size = self.string_range(field_id)
        return self._frozen.data[start : start + size]

    def items(self, field_id: int) -> "Items":
        """A list, a set (sorted) or a map (sorted pairs: 1 key, 2 value)."""
        field = self.struct(field_id)
        count = field.integer(2)
        item = field._layout.fields.get(3)  # noqa: SLF001
        layout = _NOTHING if item is None else self._frozen.schema.layouts[item[0]]
        start = field._start + field.integer(1)  # noqa: SLF001
        return Items(self._frozen, layout, start, count)


class Items:
    """A list inside of frozen data."""

    __slots__ = ("_start", "count", "frozen", "layout")

    def __init__(self, frozen: Frozen, layout: Layout, start: int, count: int) -> None:
        if count > frozen.most_items:
            raise DamagedError(
                f"a list of {count} items, more than the {frozen.most_items} that metadata of this"
                " size may have"
            )
        frozen.check_range(start, (count * layout.stride + 7) // 8, "a list")
        self.frozen = frozen
        self.layout = layout
        self._start = start
        self.count = count

    def __len__(self) -> int:
        return self.count

    def string_ranges(self) -> Callable[[int], tuple[int, int]]:
        """For a list of strings: what tells where one is in the data, as start and size."""
        distances, sizes = self.column(1), self.column(2)

        def string_range(index: int) -> tuple[int, int]:
            start = self._start + index * self.layout.size + distances[index]
            size = sizes[index]
            self.frozen.check_range(start, size, "a string")
            return start, size

        return string_range

    def strings(self) -> list[bytes]:
        """For a list of strings, all of them; together they have no more bytes than the data."""
        strings = []
        left = len(self.frozen.data)
        for start, size in map(self.string_ranges(), range(self.count)):
            left -= size
            if left < 0:
                raise DamagedError("the strings of a list share their bytes")
            strings.append(self.frozen.data[start : start + size])
        return strings

    def field(self, field_id: int, width: int = 32) -> tuple[int, int]:
        """A number inside of a struct item: its shift in the item's record, and its mask."""
        place = self.layout.fields.get(field_id)
        if place is None:
            return 0, 0
        number, offset = place
        bits = self.frozen.schema.layouts[number].bits
        if bits > width:
            raise DamagedError(f"field {field_id} has {bits} bits, at most {width} are possible")
        if bits and offset + bits > self.layout.stride:
            raise DamagedError(f"field {field_id} lies outside of its struct")
        return offset, (1 << bits) - 1

    def column(self, field_id: int, width: int = 32) -> "Column":
        """One number of each struct item."""
        shift, mask = self.field(field_id, width)
        return Column(
            self.frozen.data, self._start * 8 + shift, self.layout.stride, mask, self.count
        )

    def numbers(self, width: int = 32) -> "Column":
        """The items themselves, where they are numbers."""
        if self.layout.bits > width:
            raise DamagedError(
                f"a number has {self.layout.bits} bits, at most {width} are possible"
            )
        mask = (1 << self.layout.bits) - 1
        return Column(self.frozen.data, self._start * 8, self.layout.stride, mask, self.count)

    def records(self) -> "Column":
        """The items as they lie, each as one number, for `field`'s shifts and masks."""
        stride = self.layout.stride
        return Column(self.frozen.data, self._start * 8, stride, (1 << stride) - 1, self.count)


def unpacked(numbers: "Numbers") -> "array[int]":
    """All of a table's numbers."""
    return numbers.unpack() if isinstance(numbers, Column) else numbers


def number_reader(numbers: "Numbers") -> Callable[[int], int]:
    """The fastest function that gives one of `numbers`, which are not counted from the end."""
    return numbers.reader if isinstance(numbers, Column) else numbers.__getitem__


class Column:
    """Equally spaced numbers inside of packed bits."""

    def __init__(self, data: bytes, position: int, stride: int, mask: int, count: int) -> None:
        self._data = data
        self._position = position
        self._stride = stride
        self._mask = mask
        self._width = mask.bit_length()
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return self.reader(index)

    @cached_property
    def reader(self) -> Callable[[int], int]:
        """What gives the number at an index: a closure, for it is what everything waits for."""
        data, start, stride, mask, count = (
            self._data,
            self._position,
            self._stride,
            self._mask,
            self.count,
        )
        round_up = self._width + 7
        from_bytes = int.from_bytes

        def read(index: int) -> int:
            if not 0 <= index < count:
                raise DamagedError(f"item {index} of a metadata table of {count} items")
            position = start + index * stride
            raw = data[position >> 3 : (position + round_up) >> 3]
            return from_bytes(raw, "little") >> (position & 7) & mask

        return read

    def unpack(self) -> "array[int]":
        """All of them, four or eight bytes each, some ten times as fast as one by one."""
        code = "I" if self._width <= 32 else "Q"
        if not self._mask:
            return array(code, bytes(array(code).itemsize * self.count))
        first = self._position >> 3
        shifts = [(self._position & 7) + k * self._stride for k in range(8)]
        group_size = self._stride  # eight items of n bits are n bytes
        mask = self._mask
        starts = range(first, first + (self.count + 7) // 8 * group_size, group_size)
        # a group may begin inside a byte, hence one more
        groups = (
            int.from_bytes(self._data[start : start + group_size + 1], "little") for start in starts
        )
        numbers = array(
            code, chain.from_iterable([x >> shift & mask for shift in shifts] for x in groups)
        )
        del numbers[self.count :]
        return numbers


Numbers = Union[Column, "array[int]"]  # an array takes no index at run time
"""What a table of numbers is to its users: a Column, or an array of what was packed."""
