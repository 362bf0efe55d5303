"""What an ingest holds in memory, against the number of files and of rows of metadata.

Each case is one `visionloop ingest` in a process of its own, of tiny pictures in one folder: what
it holds at most is the kernel's `VmHWM`. The first row is the program itself, with one picture; in
the others it stands as the peer. The table of metadata has five columns; its peer is what pandas
takes to read it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import simplejpeg

from benchmarks._rows import Row, arguments, report

_INGEST = """
import json, sys, time
from pathlib import Path
from visionloop.cli import main
began = time.process_time()
status = main(["ingest", "--lake", sys.argv[1], "--source", sys.argv[2], "--json"])
held = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(json.dumps({"status": status, "mib": int(held) / 1024, "s": time.process_time() - began}))
"""
_PANDAS = """
import json, sys, time
from pathlib import Path
import pandas
began = time.process_time()
rows = pandas.read_csv(sys.argv[1]).set_index("file").to_dict("index")
held = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(json.dumps({"mib": int(held) / 1024, "s": time.process_time() - began}))
"""


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    some, many, rows = (500, 2_000, 5_000) if options.quick else (20_000, 100_000, 1_000_000)
    with TemporaryDirectory() as name:
        folder = Path(name)
        alone = _ingested(folder, "alone", 1)
        few, all_of_them = _ingested(folder, "some", some), _ingested(folder, "many", many)
        again = _run(_INGEST, str(folder / "many lake"), str(folder / "many"))
        told = _ingested(folder, "told", 1, rows=rows)
        read = _run(_PANDAS, str(folder / "told" / "metadata.csv"))
    program = "the program itself, with one picture"
    found = [
        Row("1 new file", alone["mib"], program, alone["mib"], "MiB"),
        Row(f"{some:,} new files", few["mib"], program, alone["mib"], "MiB"),
        Row(f"{many:,} new files", all_of_them["mib"], program, alone["mib"], "MiB"),
        Row(f"{many:,} files that are known", again["mib"], program, alone["mib"], "MiB"),
        Row(f"a table of {rows:,} rows of metadata", told["mib"], "pandas", read["mib"], "MiB"),
        Row(f"a table of {rows:,} rows of metadata", told["s"], "pandas", read["s"], "s"),
    ]
    report("ingest_memory", found, as_json=options.json)


def _ingested(folder: Path, name: str, files: int, *, rows: int = 0) -> dict[str, float]:
    """Make tiny pictures, with a table of metadata where rows are wanted, and ingest them."""
    source = folder / name
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(files):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (source / f"{number:07d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, 90))
    if rows:
        with (source / "metadata.csv").open("w", encoding="utf-8") as table:
            table.write("file,camera,lens,iso,weather,note\n")
            for number in range(rows):
                table.write(
                    f"{number:07d}.jpg,north,{number % 7},{number % 3200},fog,row {number}\n"
                )
    return _run(_INGEST, str(folder / f"{name} lake"), str(source))


def _run(program: str, *options: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", program, *options], capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert not told.get("status"), done.stderr
    return told


if __name__ == "__main__":
    main()
