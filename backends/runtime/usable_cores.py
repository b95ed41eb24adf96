"""How many cores this process may use: its affinity and its control groups' quota. Starts none."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_threads() -> int:
    """The most threads worth having: as many as cores may be used, and as OpenMP's own variable
    $OMP_NUM_THREADS allows every library of the process, ours among them."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list: one a level
    most = int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()
    return min(usable_cores(), most)


def usable_cores(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """At least one; a quota of 1.5 cores is two."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(math.ceil(min(allowed or 1, *_quotas(groups, own))), 1)


def _quotas(groups: Path, own: Path) -> list[float]:
    """Cores by every quota that holds for this process, in either version of control groups."""
    found = [math.inf]
    for line in (_read(own) or "").splitlines():
        match line.split(":", 2):
            case [_, "", path]:  # version 2: one tree
                found += map(_cpu_max, _upwards(groups, path))
            case [_, controllers, path] if "cpu" in controllers.split(","):
                # Inside a container the path may be the host's, and the group the mount itself.
                found += map(_cfs_quota, _upwards(groups / controllers, path))
            case _:
                pass
    return found


def _upwards(top: Path, path: str) -> list[Path]:
    """The group's folder and those above it, each of which may have a quota."""
    group = Path(path.lstrip("/"))
    return [top / each for each in (group, *group.parents)]


def _cpu_max(folder: Path) -> float:
    """`cpu.max`: quota or `max`, and period, in microseconds."""
    return _ratio(*(_read(folder / "cpu.max") or "").split()[:2])


def _cfs_quota(folder: Path) -> float:
    """`cpu.cfs_quota_us` (-1: none) over its period."""
    return _ratio(
        *((_read(folder / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period"))
    )


def _ratio(quota: str = "", period: str = "") -> float:
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        return int(quota) / int(period)
    return math.inf


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
