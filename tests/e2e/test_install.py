"""Installed as a package, away from the source, on a machine without g++ and nvcc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import pytest

from ramforge.codegen.build import toolchain
from ramforge.zoo import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with ramforge installed from a wheel; its dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    wheels, source = folder / "wheels", folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "out", "*.egg-info"))
    build = ["wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(wheels), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, cwd=folder)
    (wheel,) = wheels.glob("ramforge-*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", str(wheel)], check=True, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # a plain path, so that the editable install among the borrowed packages stays out of sight
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the environment with nothing else on PATH."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables.pop("CUDA_HOME", None)
    variables["PATH"] = str(environment / "bin")
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
    )


def test_the_package_is_the_installed_one(environment: Path, tmp_path: Path) -> None:
    where = run(
        environment, tmp_path, "python", "-c", "import ramforge.kernels as k; print(k.__file__)"
    )
    assert str(environment) in where.stdout, where.stderr


def test_compile_and_run_work_without_gcc_and_nvcc(environment: Path, tmp_path: Path) -> None:
    if toolchain.find_zig() is None:
        pytest.skip("ziglang is not installed")
    onnx.save(MODELS["encoder_small"](), tmp_path / "model.onnx")
    compiled = run(environment, tmp_path, "compile", "model.onnx", "-o", "out.cu", "-q")
    assert compiled.returncode == 0, compiled.stderr
    assert compiled.stdout == "out.cu\n"
    done = run(environment, tmp_path, "ramforge", "run", "out.cu", "--save-outputs", "y.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "y.npz") as outputs:
        (value,) = outputs.values()
        assert np.isfinite(value).all() and value.std() > 0.1
    doctor = run(environment, tmp_path, "ramforge", "doctor", "--json")
    found = {row["what"]: row for row in json.loads(doctor.stdout)}
    assert "zig" in found["host compiler"]["detail"]
    assert "nvidia" in found["NVRTC"]["detail"]


def test_a_cubin_is_built_by_the_nvrtc_of_pypi(environment: Path, tmp_path: Path) -> None:
    onnx.save(MODELS["lstm_cell"](), tmp_path / "model.onnx")
    built = run(environment, tmp_path, "compile", "model.onnx", "-o", "out.cu", "--build")
    assert built.returncode == 0, built.stderr
