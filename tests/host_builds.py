"""Host builds that are done sooner, for tests that do not look for what an optimiser does.

That a text includes what it needs is seen wherever else one is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from ramforge.codegen.build import cache, command, host
from ramforge.codegen.build.toolchain import HostCompiler, find_host_compiler

# All that an emitted text includes on a CPU.
HEADERS = (
    *("math", "stdint", "stdio", "stdlib", "string", "time", "fcntl", "pthread", "sched", "unistd"),
    *("linux/futex", "sys/mman", "sys/stat", "sys/syscall"),
)


@contextmanager
def quick_host_builds(level: str = "-O0") -> Iterator[None]:
    """Within, texts are built so, with C headers that g++ has read before: in half the time."""
    plain = tuple(level if flag == "-O3" else flag for flag in host._LANGUAGE)
    compiler = find_host_compiler()
    with mock.patch.object(host, "_LANGUAGE", plain):
        read = _headers_read(compiler) if compiler.name == "g++" else ()
        with mock.patch.object(host, "_LANGUAGE", (*plain, *read)):
            yield


def _headers_read(compiler: HostCompiler) -> tuple[str, ...]:
    flags = [flag for flag in host.host_flags(compiler) if flag not in ("-x", "c++")]
    source = "".join(f"#include <{name}.h>\n" for name in HEADERS)

    def make(path: Path) -> None:
        command_line = (*compiler.command, *flags, "-x", "c++-header")
        product, _ = command.compile_text(command_line, source)
        path.write_bytes(product)

    key = (source, compiler.version, *flags, host.cpu())
    read = cache.cached("test-headers", (part.encode() for part in key), ".h.gch", make)
    header = read.with_suffix("")
    header.write_text(source)  # g++ looks at it only if it cannot use the other
    return ("-include", str(header))
