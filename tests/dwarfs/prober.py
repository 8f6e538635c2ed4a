"""Reads hostile images, each in a process with little memory: a path per line, its fate back.

After the path, behind a tab, may stand a directory: the image is then extracted there.
"""

import os
import resource
import stat
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

# what is imported before the fork is not charged to an image
import lzma  # noqa: F401

import lz4.block  # noqa: F401
import zstandard  # noqa: F401

from fimd.dwarfs import DwarfsError, Image, consistency, verify  # noqa: F401
from fimd.dwarfs.extract import extract

MEMORY = 256 << 20
READ_OF_EACH_FILE = 4 << 20


def read_all(path: str) -> str:
    size = 0
    with Image.open(path) as image:
        for _, facts in image.walk():
            if stat.S_ISREG(facts.mode):
                file = image.file_map(facts.inode)
                for offset in range(0, min(file.size, READ_OF_EACH_FILE), 1 << 20):
                    size += len(image.read_map(file, offset, 1 << 20))
            elif stat.S_ISLNK(facts.mode):
                image.readlink(facts.inode)
        faults = verify.verify(image, content=True, threads=1)
        if faults:
            return f"faulty: {faults[0]}"
        image.history()
    return f"served {size}"


def extract_all(path: str, destination: str) -> str:
    with Image.open(path) as image:
        extract(image, destination)
    return "extracted"


def fate(path: str, destination: str) -> str:
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    try:
        return extract_all(path, destination) if destination else read_all(path)
    except (DwarfsError, OSError) as error:
        return f"refused: {error}"
    except BaseException as error:  # noqa: BLE001 - the test sees it
        return f"bug: {error!r}"


def main() -> None:
    for line in sys.stdin:
        path, _, destination = line.rstrip("\n").partition("\t")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, fate(path, destination).encode()[:2000])
            os._exit(0)
        os.close(writer)
        _, status, usage = os.wait4(child, 0)
        with open(reader, "rb") as answer:
            text = answer.read().decode(errors="replace").replace("\n", " ")
        if status:
            text = f"bug: left with status {status}"
        seconds = usage.ru_utime + usage.ru_stime
        print(f"{seconds}\t{usage.ru_maxrss * 1024}\t{text}", flush=True)


main()
