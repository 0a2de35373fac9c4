"""A verb that trains restarts once with huge pages, only where that changes something."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.cli import huge_pages

SHOW = (
    "import os, sys; from minimind.cli.huge_pages import restart_with_huge_pages as restart;"
    "first = os.environ.get('GLIBC_TUNABLES'); restart();"
    "print(os.getpid(), first, *sys.argv[1:])"
)
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HERE = (
    sys.platform == "linux"
    and platform.libc_ver()[0] == "glibc"
    and KERNEL.exists()
    and "[madvise]" in KERNEL.read_text()
)


def run(**environment: str) -> tuple[list[str], int]:
    clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, "a b", "--x=1"],
        env=clean | environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, _ = process.communicate(timeout=300)
    return out.split(" ", 2), process.pid


@pytest.mark.skipif(not HERE, reason="needs Linux, glibc and madvise huge pages")
def test_restarts_once_in_the_same_process_with_the_same_arguments():
    (pid, tunables, rest), started = run()
    assert int(pid) == started
    assert tunables == "glibc.malloc.hugetlb=1"
    assert rest == "a b --x=1\n"


@pytest.mark.parametrize("setting", ["", "glibc.malloc.arena_max=1"])
def test_leaves_alone_what_the_user_has_set(setting):
    (pid, tunables, _), started = run(GLIBC_TUNABLES=setting)
    assert (int(pid), tunables) == (started, setting)


@pytest.mark.parametrize("kernel", ["[always] madvise never", "always madvise [never]", None])
def test_does_nothing_where_the_kernel_decides(monkeypatch, tmp_path, kernel):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    setting = tmp_path / "enabled"
    if kernel is not None:
        setting.write_text(kernel)
    monkeypatch.setattr(huge_pages, "_KERNEL_SETTING", setting)
    assert not huge_pages.helps()
