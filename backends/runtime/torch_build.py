"""Which torch is installed, without importing it: that takes seconds. Knows no target."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


class NoTorch(ImportError):
    """torch is not installed, or not as a package with a version; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """torch's version, and that of the CUDA or ROCm which it was built with, if any."""

    version: str
    cuda: str | None
    hip: str | None

    @property
    def built(self) -> str:
        """The device that it was built for, in words."""
        if self.hip:
            return f"ROCm {self.hip}"
        return f"CUDA {self.cuda}" if self.cuda else "for the CPU only"


def torch_build() -> TorchBuild:
    """What the installed torch says of itself. Raises NoTorch."""
    package = find_spec("torch")  # finds the folder; only a submodule would need an import
    where = package.origin if package else None
    if where is None:
        raise NoTorch("torch is not installed; install lostwax with its dependencies")
    spec = spec_from_file_location("torch_version", Path(where).with_name("version.py"))
    if spec is None or spec.loader is None:
        raise NoTorch(f"{where} has no version.py beside it; install torch anew")
    version = module_from_spec(spec)
    try:
        spec.loader.exec_module(version)
    except OSError as error:
        raise NoTorch(f"torch is not whole ({error}); install it anew") from error
    return TorchBuild(str(version.__version__), version.cuda, version.hip)
