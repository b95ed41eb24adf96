"""From `lostwax serve` to the first token, by phase, on this machine.

`python benchmarks/boot.py --out FILE` starts the default model once with an empty cache (it is
compiled, its golden probes run) and then `--starts` times as later users find it; each start asks
one streamed chat when it is ready. With `--artifact DIR --checkpoint DIR` it starts these, asks one
token of a prompt of ids, and says whether the artifact was left as it was. Wall clock from the
start of the process. Of the server's processes it says how much memory of each is resident then,
and whether compilers or torch were mapped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import httpx

QUESTION = "What is 17 + 25?"
PHASE = re.compile(r"^  (\S.*?) +(\d+\.\d\d) s$")
RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
COMMAND, ENGINE = "command line, artifact found", "engine process, its imports"
FIRST, REST = "question to first token", "rest of the answer"
COMPILERS = (
    "libtorch",
    "libtriton",
    "libnvrtc",
    "libLLVM",
    "libnvptxcompiler",
    "ptxas",
    "cicc",
    "libxgrammar",
)
Times = dict[str, float]


def start(cache: Path, served: tuple[str, ...]) -> tuple[Times, dict[str, Any]]:
    """Seconds by phase of one start, in order, and what was answered."""
    begin = time.perf_counter()
    kept = "--certificates" if served else "--cache"
    command = [sys.executable, "-m", "lostwax", "serve", *served, kept, str(cache), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url, phases = _until_ready(server, begin)
            ready = time.perf_counter() - begin
            first, last, text = _ask_one(url) if served else _ask(url)
            compilers, memory = mapped(server.pid), resident(server.pid)
        finally:
            server.terminate()
            assert server.stderr is not None
            server.stderr.read()
    found = phases | {FIRST: first, REST: last - first}
    times: dict[str, Any] = {
        "ready": ready,
        "first token": ready + first,
        "text": text,
        "compilers": compilers,
    }
    times["resident_mib"] = memory
    return found, times


def mapped(process: int) -> list[str]:
    """Compilers' files among those that the process and its descendants have mapped."""
    files = Path(f"/proc/{process}/maps").read_text(encoding="utf-8").split()
    found = {name for name in map(os.path.basename, files) if name.startswith(COMPILERS)}
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            found.update(mapped(int(child)))
    return sorted(found)


def resident(process: int) -> dict[str, float]:
    """MiB of memory of the process and of its descendants, by the module that each runs."""
    command = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    name = command[command.index("-m") + 1] if "-m" in command else command[0]
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = {f"{name} ({process})": round(int(RESIDENT.findall(status)[0]) / 1024, 1)}
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            found |= resident(int(child))
    return found


def digest_of(folder: Path) -> str:
    """Of the names, sizes and bytes of a folder's files."""
    found = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        data = file.read_bytes()
        found.update(f"{file.relative_to(folder)} {len(data)} ".encode() + data)
    return found.hexdigest()


def _until_ready(server: subprocess.Popen[str], begin: float) -> tuple[str, Times]:
    assert server.stderr is not None
    phases, url, listening = Times(), "", 0.0
    compiled, line = 0.0, ""
    for line in server.stderr:
        now = time.perf_counter() - begin
        if found := PHASE.match(line):
            phases[found[1]] = phases.get(found[1], 0.0) + float(found[2])
        elif found := re.match(r"listening on (\S+);", line):
            url, listening, compiled = found[1], now, sum(phases.values())
        elif " is ready: " in line:
            loading = sum(phases.values()) - compiled
            outside = {COMMAND: listening - compiled, ENGINE: now - listening - loading}
            return url, outside | phases
    raise SystemExit(f"the server did not start: {line}")


def _ask_one(url: str) -> tuple[float, float, str]:
    """Seconds of a completion of one token, twice, and its text."""
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 1, "temperature": 0}
    begin = time.perf_counter()
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    answer.raise_for_status()
    taken = time.perf_counter() - begin
    return taken, taken, answer.json()["choices"][0]["text"]


def _ask(url: str) -> tuple[float, float, str]:
    """Seconds to the first and to the last piece of the answer, and the answer."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "stream": True}
    begin, first, text = time.perf_counter(), 0.0, ""
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                text += choice["delta"].get("content") or ""
                first = first or (time.perf_counter() - begin if text else 0.0)
    return first, time.perf_counter() - begin, text


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median_s": round(statistics.median(values), 3),
        "min_s": round(min(values), 3),
        "max_s": round(max(values), 3),
    }


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"machine": platform.machine(), "processor": names[:1], "cores": os.cpu_count()}


def main() -> None:
    """Start, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]  # other work on the cores shows in every number
    served, before = tuple[str, ...](), ""
    if options.artifact:
        served = (str(options.artifact), "--checkpoint", str(options.checkpoint))
        before = digest_of(options.artifact)
    with tempfile.TemporaryDirectory() as folder:
        cold, cold_times = start(Path(folder), served)
        starts = [start(Path(folder), served) for _ in range(options.starts)]
    phases = {name: _spread([found[name] for found, _ in starts]) for name in starts[0][0]}
    totals = {
        name: _spread([times[name] for _, times in starts]) for name in ("ready", "first token")
    }
    cold = {name: round(seconds, 3) for name, seconds in cold.items()}
    cold_totals = {name: round(cold_times[name], 3) for name in ("ready", "first token")}
    report = {
        "command": " ".join(["python", "benchmarks/boot.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        **_machine(),
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "starts": options.starts,
        "phases": phases,
        "totals": totals,
        "cold": cold,
        "cold_totals": cold_totals,
        "compilers": starts[-1][1]["compilers"],
        "resident_mib": list(starts[-1][1]["resident_mib"].items()),
    }
    if options.artifact:
        report["artifact_unchanged"] = digest_of(options.artifact) == before
    else:
        report |= {"question": QUESTION, "answer": cold_times["text"]}
    for name, spread in (phases | totals).items():
        print(
            f"{name:<36}{spread['median_s']:7.3f} s  {spread['min_s']:.3f} to {spread['max_s']:.3f}"
        )
    for name, mib in starts[-1][1]["resident_mib"].items():
        print(f"{name:<36}{mib:7.1f} MiB resident")
    print(f"mapped: {', '.join(starts[-1][1]['compilers']) or 'neither torch nor a compiler'}")
    print("first start, with an empty cache:")
    for name, seconds in (cold | cold_totals).items():
        print(f"{name:<36}{seconds:7.3f} s")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
