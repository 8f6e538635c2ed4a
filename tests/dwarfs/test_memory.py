"""Memory of blocks, used again only where nobody can see it."""

from fimd.dwarfs.memory import Memory

SIZE = 5 << 20  # two huge pages and a half


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    memory = Memory()
    first = memory.take(SIZE)
    first[:5] = b"first"
    block = memoryview(first).toreadonly()
    piece = block[:5]
    memory.give_back(block)
    del first, block
    second = memory.take(SIZE)
    second[:6] = b"second"
    assert bytes(piece) == b"first"
    del piece
    assert memory.take(SIZE)[:5] == b"first"  # the same memory


def test_memory_of_another_size_is_new() -> None:
    memory = Memory()
    memory.give_back(memoryview(memory.take(SIZE)))
    assert len(memory.take(SIZE + 1)) == SIZE + 1
    assert len(memory.take(1)) == 1


def test_what_is_no_such_memory_is_not_kept() -> None:
    memory = Memory()
    memory.give_back(b"bytes")
    memory.give_back(memoryview(b"bytes"))
    assert memory.take(5)[:] == bytes(5)
