"""The files of the repository that are made from others, and whether they are fresh.

``python -m visionloop.pipelines.generated`` (``make generated``) writes them all: the compiled
pipelines and components, the pipelines as they are placed on two kinds of cluster, a page for each
component, the list of those pages. With ``--check`` it writes nothing and fails where one is stale.
The schema and the reference of ``loop.yaml`` are among them: `visionloop.schema` makes them.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionloop import schema
from visionloop.cluster_config import MOUNT_PATH
from visionloop.components.image import RELEASE
from visionloop.pipelines import registry
from visionloop.pipelines.arguments import parameters
from visionloop.pipelines.compiling import compile_all, compile_pipeline
from visionloop.pipelines.placing import Placed
from visionloop.pipelines.reference import COMMAND, pages

# The repository, where this package lies in one; a wheel has nothing to refresh.
ROOT = Path(__file__).resolve().parents[1]

# Each pipeline as a cluster gets it: on CPUs with a lake on a volume, and on a pool of GPUs behind
# a queue. What changes in them is looked at, and checked by meaning in `tests/pipelines`.
GOLDEN = "tests/pipelines/golden"
_GPU_NODES = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
_GPU_POOL = {
    "accelerator_type": "nvidia.com/gpu",
    "accelerator_count": 2,
    "node_selector": _GPU_NODES,
    "train_node_selector": _GPU_NODES,
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "accelerator_cpu": "8",
    "accelerator_memory": "32Gi",
}
PLACEMENTS: dict[str, tuple[Placed, dict[str, Any]]] = {
    "cpu": (Placed(image=RELEASE, claim="visionloop-lake", mount_path=MOUNT_PATH, width=2), {}),
    "gpu": (
        Placed(image=RELEASE, queue="gpu", width=8, cpu="2", memory="8Gi", select_memory="32Gi"),
        _GPU_POOL,
    ),
}

# A patch release of kfp changes this line and nothing that a cluster reads.
_SDK = re.compile(rb"^(sdkVersion: |# Made by `.*` with kfp ).*$", re.MULTILINE)


def generate(folder: str | Path, *, root: str | Path = ROOT) -> list[Path]:
    """Write every generated file.

    Args:
        folder: Gets them in the layout of the repository.
        root: The repository, for the part of a page that is written by hand.

    Returns:
        The files.
    """
    folder = Path(folder)
    # What a person has in VISIONLOOP_IMAGE must not reach the repository.
    written = compile_all(folder, placed=Placed(image=RELEASE))
    for name, (placed, arguments) in PLACEMENTS.items():
        written += _golden(folder / GOLDEN / name, placed, arguments)
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    page = folder / "docs" / schema.REFERENCE_FILE
    if not page.exists():
        shutil.copy(Path(root) / "docs" / schema.REFERENCE_FILE, page)
    return [*written, *schema.write(page.parent)]


def _golden(folder: Path, placed: Placed, arguments: dict[str, Any]) -> list[Path]:
    import kfp

    files = []
    for name in registry.NAMES:
        known = parameters(name)
        own = {key: value for key, value in arguments.items() if key in known}
        path = compile_pipeline(name, folder / f"{name}.yaml", placed=placed, arguments=own)
        # Compiled files name the version of kfp that wrote them, and another may write another.
        note = f"# Made by `{COMMAND}` with kfp {kfp.__version__}.\n"
        path.write_text(note + path.read_text(encoding="utf-8"), encoding="utf-8")
        files.append(path)
    return files


def stale(root: str | Path = ROOT) -> list[str]:
    """Return the generated files that are not what would be generated now.

    Args:
        root: The repository.

    Returns:
        Paths below it, sorted: of files that differ or are missing, and of compiled files whose
        pipeline or component is gone.
    """
    root = Path(root)
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {str(path.relative_to(scratch)): path for path in generate(scratch, root=root)}
        differing = [
            name
            for name, path in fresh.items()
            if not (root / name).is_file() or _content(root / name) != _content(path)
        ]
    patterns = (
        "pipelines/*.yaml",
        "components/*/component.yaml",
        "components/*/README.md",
        f"{GOLDEN}/*/*.yaml",
    )
    there = {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}
    return sorted([*differing, *(there - set(fresh))])


def main(argv: Sequence[str] | None = None) -> int:
    """Write the generated files of this repository, or check them.

    Args:
        argv: ``--check`` or nothing; the process's by default.

    Returns:
        Exit status: 1 where a file is stale.
    """
    if "--check" not in (sys.argv[1:] if argv is None else argv):
        for path in generate(ROOT):
            print(path.relative_to(ROOT))
        return 0
    found = stale()
    if found:
        print(f"stale: {', '.join(found)}; run `{COMMAND}`", file=sys.stderr)
    return 1 if found else 0


def _content(path: Path) -> bytes:
    return _SDK.sub(b"", path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
