"""How fast ingest checks photographs, how right its measures are, and which defects it finds.

JPEG photographs of 1080p and 640x480, about two bits a pixel as cameras write them: real ones
enlarged, with a sensor's noise; made ones where the real ones are absent. All of it on one core,
timed by the processor's clock, in turn with the peers (`pip install visionloop[bench]`). Ours and
the naive loops hash, decode, check and make a thumbnail and a perceptual hash; CleanVision runs its
own checks, which are fewer. Then files are cut and damaged, and those that are refused are counted.
(Which spoilt pictures are flagged: `benchmarks.monitoring`.)
"""

from __future__ import annotations

from benchmarks._ingest_speed import speed_rows
from benchmarks._picture_flags import damage_rows
from benchmarks._rows import arguments, report
from benchmarks._vectors import compute_alike


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__)
    rows = [*speed_rows(quick=options.quick), *damage_rows(quick=options.quick)]
    report("ingest", rows, as_json=options.json)


if __name__ == "__main__":
    main()
