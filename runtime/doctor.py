"""What this machine has of what ramforge can use, and one fix for each thing that is missing.

No check raises: whatever goes wrong in one is its finding.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ramforge.codegen.build import cache, host, linked, nvjitlink, nvrtc, toolchain

_OK, _MISSING = "ok", "missing"
_MINIMUM_PYTHON = (3, 10)
# From the widest down: the CPU's flag, and the width of its vectors.
_VECTOR_WIDTHS = (("avx512f", 512), ("avx2", 256), ("avx", 256), ("sse2", 128), ("asimd", 128))
_SAME_SERIES = "pip install 'ramforge[nvrtc]', to build faster after a change"
_CUDA_SUCCESS = 0
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for; ``fix`` is empty where nothing needs doing."""

    what: str
    state: str
    detail: str
    fix: str = ""


Check = Callable[[], Finding]


def diagnose() -> tuple[Finding, ...]:
    """Every finding, in the order of the way from a model to a device."""
    return tuple(_safely(what, check) for what, check in _checks())


def render(findings: tuple[Finding, ...]) -> str:
    """A plain table, with the fixes under it."""
    what_width = max((len(finding.what) for finding in findings), default=0)
    state_width = max((len(finding.state) for finding in findings), default=0)
    lines = [
        f"{finding.what:<{what_width}}  {finding.state:<{state_width}}  {finding.detail}".rstrip()
        for finding in findings
    ]
    fixes = [f"  {finding.what}: {finding.fix}" for finding in findings if finding.fix]
    return "\n".join([*lines, *(["", "fixes", *fixes] if fixes else [])])


def as_json(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """The findings as plain data."""
    return [asdict(finding) for finding in findings]


def _checks() -> tuple[tuple[str, Check], ...]:
    def package(name: str, distributions: tuple[str, ...], fix: str) -> tuple[str, Check]:
        return name, lambda: _package(name, distributions, fix)

    return (
        ("Python", _python),
        package("NumPy", ("numpy",), "pip install numpy"),
        package("onnx", ("onnx",), "pip install onnx"),
        ("host compiler", _host_compiler),
        ("CPU vectors", _cpu_vectors),
        ("CPU cores", _cpu_cores),
        ("nvcc", _nvcc),
        ("NVRTC", _nvrtc),
        ("nvJitLink", _nvjitlink),
        package(
            "cupy",
            ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
            "pip install 'ramforge[cuda]', to run on a GPU",
        ),
        ("CUDA device", _cuda_device),
        ("build cache", _build_cache),
        package(
            "onnxruntime",
            ("onnxruntime", "onnxruntime-gpu"),
            "pip install onnxruntime, to compare results and times with",
        ),
    )


def _safely(what: str, check: Check) -> Finding:
    try:
        return check()
    except Exception as error:  # a diagnosis that dies helps nobody
        reason = str(error).partition("\n    fix: ")
        return Finding(what, _MISSING, f"{type(error).__name__}: {reason[0]}", reason[2])


def _python() -> Finding:
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= _MINIMUM_PYTHON:
        return Finding("Python", _OK, detail)
    return Finding("Python", _MISSING, detail, "install Python 3.10 or newer")


def _package(what: str, distributions: tuple[str, ...], fix: str) -> Finding:
    """By its metadata only: importing torch takes seconds, and cupy without a driver may fail."""
    for distribution in distributions:
        try:
            return Finding(what, _OK, importlib.metadata.version(distribution))
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(what, _MISSING, "not installed", fix)


def _host_compiler() -> Finding:
    compiler = toolchain.find_host_compiler()
    return Finding("host compiler", _OK, f"{compiler.version} ({' '.join(compiler.command)})")


def _cpu_vectors() -> Finding:
    features = set(host.cpu().split())
    for flag, bits in _VECTOR_WIDTHS:
        if flag in features:
            return Finding("CPU vectors", _OK, f"{bits} bits ({flag})")
    return Finding("CPU vectors", _MISSING, f"none known on {platform.machine()}")


def _cpu_cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("CPU cores", _OK, f"{usable} of {os.cpu_count()} may be used")


def _nvcc() -> Finding:
    found = toolchain.find_nvcc()
    if found:
        return Finding("nvcc", _OK, f"{found.version} at {found.path}")
    return Finding("nvcc", _MISSING, "not found", "install a CUDA toolkit, or use NVRTC instead")


def _nvrtc() -> Finding:
    major, minor = nvrtc.version()
    found = toolchain.find_nvrtc()
    return Finding("NVRTC", _OK, f"{major}.{minor} at {found.path if found else 'unknown'}")


def _nvjitlink() -> Finding:
    major, minor = nvjitlink.version()
    detail = f"{major}.{minor} at {toolchain.find_nvjitlink()}"
    if obstacle := linked.obstacle():
        return Finding("nvJitLink", _MISSING, f"{detail}: {obstacle}", _SAME_SERIES)
    return Finding("nvJitLink", _OK, detail)


def _cuda_device() -> Finding:
    what, fix = "CUDA device", "run on a machine with an NVIDIA GPU and driver, or use `host`"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding(what, _MISSING, "no driver (libcuda.so.1)", fix)
    status = driver.cuInit(0)
    if status != _CUDA_SUCCESS:
        return Finding(what, _MISSING, f"the driver answers error {status} to cuInit", fix)
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        return Finding(what, _MISSING, "a driver, but no device", fix)
    speaks = f"driver for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    devices = ", ".join(_device(driver, index) for index in range(count.value))
    return Finding(what, _OK, f"{devices} ({speaks})")


def _device(driver: ctypes.CDLL, index: int) -> str:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return f"{name.value.decode(errors='replace')} sm_{major.value}{minor.value}"


def _build_cache() -> Finding:
    usage = cache.usage()
    detail = f"{usage.folder}: {usage.entries} entries, {usage.size_bytes / 2**20:.1f} MiB"
    existing = usage.folder
    while not existing.exists():
        existing = existing.parent
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding("build cache", _OK, detail)
    fix = f"set {cache.FOLDER_VARIABLE} to a folder that you can write"
    return Finding("build cache", _MISSING, f"{detail}; {existing} is not a writable folder", fix)
