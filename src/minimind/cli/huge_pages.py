"""Training on a CPU with pages of 2 MB: 8-11 % more tokens a second at 64m.

`bench/train.py` measures it, and without it under `GLIBC_TUNABLES=` (docs/LOG.md).

A step allocates and frees hundreds of MB in large blocks; with pages of 4 KB the kernel hands out
and clears each of them a hundred thousand times a second. glibc asks for huge pages when
`GLIBC_TUNABLES` says so, and reads that only when a process starts. So a verb that trains starts
itself once more, in the same process id, before anything heavy is imported.

Nothing happens outside Linux, with another C library, where the kernel gives huge pages to all or
to none, or where `GLIBC_TUNABLES` is already set (also to nothing: that switches this off).
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb=1"
_SINCE_GLIBC = (2, 35)
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Replace this process by itself with huge pages on, if that would change something."""
    if not helps():
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLE}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def helps() -> bool:
    """Tell whether a restart would give this process huge pages that it doesn't have."""
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return False
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if library != "glibc" or numbers < _SINCE_GLIBC:
        return False
    try:
        return "[madvise]" in _KERNEL_SETTING.read_text(encoding="ascii")
    except OSError:
        return False
