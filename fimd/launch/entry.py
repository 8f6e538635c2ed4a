"""The first program in a sandbox: it sets its process up and becomes the one that is to run.

    entry PARENT LETTERS PROGRAM [ARGUMENT ...]

1. The kernel is to kill the process when bubblewrap, its PARENT, has ended. Bubblewrap's own way
   (--die-with-parent) ends bubblewrap with its parent as well: `nohup IMAGE &` would not outlive
   the shell that it was typed into. With 0 for the PARENT this is left out.
2. Each letter is a signal that gets its default action again: a for 1 (SIGHUP), b for 2 (SIGINT),
   c for 3 (SIGQUIT). Bubblewrap ignores them, an ignored signal stays ignored by whatever is
   executed, and no shell may change that (POSIX, `trap`).

The sandbox has libraries of its own or none at all, so the program has to be static. It is so small
that its instructions stand here.
"""

import platform
import struct
from typing import Final

_X86_64: Final = """
    4c 8b 24 24                   mov   r12, [rsp]              argc
    4c 8d 6c 24 20                lea   r13, [rsp+32]           argv + 3
    4e 8d 74 e4 10                lea   r14, [rsp+r12*8+16]     envp
    48 8b 74 24 10                mov   rsi, [rsp+16]           argv[1]
    31 db                         xor   ebx, ebx
    0f b6 06               digit: movzx eax, byte ptr [rsi]
    85 c0                         test  eax, eax
    74 0d                         jz    parent
    48 ff c6                      inc   rsi
    83 e8 30                      sub   eax, 48
    6b db 0a                      imul  ebx, ebx, 10
    01 c3                         add   ebx, eax
    eb ec                         jmp   digit
    85 db                 parent: test  ebx, ebx
    74 1c                         jz    reset
    bf 01 00 00 00                mov   edi, 1                  PR_SET_PDEATHSIG
    be 09 00 00 00                mov   esi, 9                  SIGKILL
    b8 9d 00 00 00                mov   eax, 157                prctl
    0f 05                         syscall
    b8 6e 00 00 00                mov   eax, 110                getppid
    0f 05                         syscall
    39 d8                         cmp   eax, ebx
    75 72                         jne   gone
    48 8b 5c 24 18         reset: mov   rbx, [rsp+24]           argv[2]
    48 83 ec 20                   sub   rsp, 32                 a struct sigaction
    31 c0                         xor   eax, eax
    48 89 04 24                   mov   [rsp], rax              SIG_DFL
    48 89 44 24 08                mov   [rsp+8], rax
    48 89 44 24 10                mov   [rsp+16], rax
    48 89 44 24 18                mov   [rsp+24], rax
    0f b6 3b                next: movzx edi, byte ptr [rbx]
    83 e7 1f                      and   edi, 31
    74 17                         jz    run
    48 ff c3                      inc   rbx
    48 89 e6                      mov   rsi, rsp
    31 d2                         xor   edx, edx
    41 ba 08 00 00 00             mov   r10d, 8
    b8 0d 00 00 00                mov   eax, 13                 rt_sigaction
    0f 05                         syscall
    eb e1                         jmp   next
    49 8b 7d 00              run: mov   rdi, [r13]
    4c 89 ee                      mov   rsi, r13
    4c 89 f2                      mov   rdx, r14
    b8 3b 00 00 00                mov   eax, 59                 execve
    0f 05                         syscall
    48 8d 35 2b 00 00 00          lea   rsi, [rip+text]         it came back: none there
    ba 2e 00 00 00                mov   edx, 46
    bf 02 00 00 00           say: mov   edi, 2
    b8 01 00 00 00                mov   eax, 1                  write
    0f 05                         syscall
    bf 7f 00 00 00                mov   edi, 127
    b8 3c 00 00 00                mov   eax, 60                 exit
    0f 05                         syscall
    48 8d 35 35 00 00 00    gone: lea   rsi, [rip+text+46]
    ba 36 00 00 00                mov   edx, 54
    eb da                         jmp   say
"""

_AARCH64: Final = """
    f3 03 40 f9                   ldr   x19, [sp]               argc
    f4 83 00 91                   add   x20, sp, #32            argv + 3
    f5 6f 33 8b                   add   x21, sp, x19, lsl #3
    b5 42 00 91                   add   x21, x21, #16           envp
    f6 0b 40 f9                   ldr   x22, [sp, #16]          argv[1]
    f7 03 1f 2a                   mov   w23, wzr
    58 01 80 52                   mov   w24, #10
    c0 16 40 38            digit: ldrb  w0, [x22], #1
    80 00 00 34                   cbz   w0, parent
    00 c0 00 51                   sub   w0, w0, #48
    f7 02 18 1b                   madd  w23, w23, w24, w0
    fc ff ff 17                   b     digit
    37 01 00 34           parent: cbz   w23, reset
    20 00 80 d2                   mov   x0, #1                  PR_SET_PDEATHSIG
    21 01 80 d2                   mov   x1, #9                  SIGKILL
    e8 14 80 d2                   mov   x8, #167                prctl
    01 00 00 d4                   svc   #0
    a8 15 80 d2                   mov   x8, #173                getppid
    01 00 00 d4                   svc   #0
    1f 00 17 6b                   cmp   w0, w23
    61 03 00 54                   b.ne  gone
    f6 0f 40 f9            reset: ldr   x22, [sp, #24]          argv[2]
    ff 83 00 d1                   sub   sp, sp, #32             a struct sigaction
    ff 7f 00 a9                   stp   xzr, xzr, [sp]          SIG_DFL
    ff 7f 01 a9                   stp   xzr, xzr, [sp, #16]
    c0 16 40 38             next: ldrb  w0, [x22], #1
    00 10 00 72                   ands  w0, w0, #31
    e0 00 00 54                   b.eq  run
    e1 03 00 91                   mov   x1, sp
    e2 03 1f aa                   mov   x2, xzr
    03 01 80 d2                   mov   x3, #8
    c8 10 80 d2                   mov   x8, #134                rt_sigaction
    01 00 00 d4                   svc   #0
    f8 ff ff 17                   b     next
    80 02 40 f9              run: ldr   x0, [x20]
    e1 03 14 aa                   mov   x1, x20
    e2 03 15 aa                   mov   x2, x21
    a8 1b 80 d2                   mov   x8, #221                execve
    01 00 00 d4                   svc   #0
    61 01 00 10                   adr   x1, text                it came back: none there
    c2 05 80 d2                   mov   x2, #46
    40 00 80 d2              say: mov   x0, #2
    08 08 80 d2                   mov   x8, #64                 write
    01 00 00 d4                   svc   #0
    e0 0f 80 d2                   mov   x0, #127
    a8 0b 80 d2                   mov   x8, #93                 exit
    01 00 00 d4                   svc   #0
    c1 01 00 50             gone: adr   x1, text + 46
    c2 06 80 d2                   mov   x2, #54
    f8 ff ff 17                   b     say
"""

_TEXT: Final = (
    b"fimd: the image has no shell to run programs.\n"  # 46 bytes
    b"fimd: the process that was to run this one has ended.\n"  # 54 bytes
)
_LISTINGS: Final = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""By machine: its number in ELF (e_machine of elf(5)), and the instructions before the text."""
_BYTES_COLUMN: Final = slice(0, 24)
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56  # an ELF header and one program header


def program(machine: str | None = None) -> bytes | None:
    """Return the program for a machine (this one by default), None where there is none for it."""
    number, listing = _LISTINGS.get(machine or platform.machine(), (0, ""))
    if not number:
        return None
    code = bytes.fromhex("".join(line[_BYTES_COLUMN] for line in listing.splitlines())) + _TEXT
    size = _HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1
        *(2, number, 1),  # an executable
        *(_BASE + _HEADERS, 64, 0),  # where it begins, and where its program headers are
        *(0, 64, 56, 1, 0, 0, 0),
    )
    # one segment, to be read and executed: all of the file
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def words(parent: int, signals: tuple[int, ...]) -> tuple[str, str]:
    """Return the words PARENT and LETTERS."""
    return str(parent), "".join(chr(ord("a") - 1 + number) for number in signals)
