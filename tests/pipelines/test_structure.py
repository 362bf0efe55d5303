"""The architecture's arrows and single places, held."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from visionloop.components import registry

ROOT = Path(__file__).resolve().parents[2]
# What a process may not pay for unless it is the one that needs it.
HEAVY = {
    "cv2",
    "google",
    "jinja2",
    "kfp",
    "kserve",
    "kubernetes",
    "label_studio_sdk",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyiceberg",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "torch",
    "torchvision",
}
# The modules that exist to adapt one heavy package, each reached by an import inside a function.
ADAPTERS = {
    "visionloop/lake/file_io.py": {"pyiceberg"},
    "visionloop/lake/scanning.py": {"pyiceberg"},
    "visionloop/serving/grpc_service.py": {"kserve"},
    "visionloop/serving/kserve_model.py": {"kserve"},
}
# Most of these are tests: one file a stage, one function a claim.
LONGEST = 400
REASON = re.compile(r"^# Over 400 lines: \S.{15,}", re.MULTILINE)


def modules() -> list[Path]:
    folders = [ROOT / "visionloop", ROOT / "components", ROOT / "pipelines"]
    return sorted({p.resolve() for f in folders for p in f.rglob("*.py")})


def test_imports_point_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("stage", registry.NAMES)
def test_a_stages_module_imports_nothing_heavy(stage: str) -> None:
    program = (
        "import sys, json, importlib\n"
        f"importlib.import_module('visionloop.stages.{stage}')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert not loaded & (HEAVY - {"google"})


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def in_repository(path: Path) -> str:
    return str(path.relative_to(ROOT))


def engine() -> list[Path]:
    """Every module but the KFP interfaces and compositions, which are about kfp."""
    return [p for p in modules() if in_repository(p).startswith("visionloop/")]


def imported_on_import(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what a module imports as soon as it is imported: not in functions, not for types."""
    for node in body:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom() if not node.level:
                yield str(node.module)
            case ast.If():
                if ast.unparse(node.test) != "TYPE_CHECKING":
                    yield from imported_on_import(node.body)
                yield from imported_on_import(node.orelse)
            case ast.Try():
                for part in (node.body, *(h.body for h in node.handlers), node.orelse):
                    yield from imported_on_import(part)
            case ast.With() | ast.ClassDef():
                yield from imported_on_import(node.body)


def test_no_module_imports_what_is_heavy_before_it_is_needed() -> None:
    found = {}
    for path in engine():
        tops = {name.split(".")[0] for name in imported_on_import(parsed(path).body)}
        if heavy := tops & HEAVY:
            found[in_repository(path)] = heavy
    assert found == ADAPTERS


def test_importing_the_whole_engine_loads_nothing_heavy() -> None:
    adapters = {name.removesuffix(".py").replace("/", ".") for name in ADAPTERS}
    names = {in_repository(p).removesuffix(".py").replace("/", ".") for p in engine()}
    # Running this one would run the command line.
    names -= {"visionloop.__main__"}
    # What imports an adapter as it is imported is as heavy; only the predictor's process does.
    heavy = adapters | {"visionloop.serving.predictor"}
    program = (
        "import importlib, json, sys\n"
        f"for name in {sorted(name.removesuffix('.__init__') for name in names - heavy)!r}:\n"
        "    importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert not set(json.loads(answer.stdout.splitlines()[-1])) & (HEAVY - {"google"})


def test_environment_variables_are_touched_in_one_place() -> None:
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    found = []
    for path in modules():
        if in_repository(path) == "visionloop/environment.py":
            continue
        for node in ast.walk(parsed(path)):
            touched = (isinstance(node, ast.Attribute) and node.attr in names) or (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and names & {alias.name for alias in node.names}
            )
            if touched:
                found.append(f"{in_repository(path)}:{node.lineno}")
    assert found == []


def test_the_columns_of_the_lake_are_written_in_one_place() -> None:
    # Elsewhere a schema is a part of one of those, never a list of names and types of its own.
    builders = {"schema", "field", "struct"}
    found = []
    for path in engine():
        if in_repository(path) == "visionloop/lake/schemas.py":
            continue
        for call in ast.walk(parsed(path)):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if ast.unparse(call.func.value) != "pa":
                continue
            own = call.func.attr == "timestamp" or (
                call.func.attr in builders and any(named(argument) for argument in call.args)
            )
            if own:
                found.append(f"{in_repository(path)}:{call.lineno}: {ast.unparse(call)[:60]}")
    assert found == []


def named(argument: ast.expr) -> bool:
    """Whether an argument of a schema names a column itself."""
    derived = {
        id(inner)
        for node in ast.walk(argument)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "arrow_schema"
        for inner in ast.walk(node)
    }
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in derived
        for node in ast.walk(argument)
    )


def test_types_are_checked_strictly_and_nothing_is_let_off_wholesale() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    mypy = settings["mypy"]
    assert mypy["strict"] and mypy["packages"] == ["visionloop"] and "exclude" not in mypy
    assert "ignore-without-code" in mypy["enable_error_code"]
    interfaces = {"visionloop.components.*", "visionloop.pipelines.*"}
    for override in mypy["overrides"]:
        ours = {name for name in override["module"] if name.startswith("visionloop")}
        assert ours <= interfaces, "the engine is checked as it is"
        assert "ignore_errors" not in override
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#\s*mypy:|#\s*ruff:\s*noqa|#\s*flake8:", text), path.name
        assert not re.search(r"#\s*(?:type: ignore|noqa)(?!\[|: [A-Z])", text), path.name


def test_no_module_is_named_for_a_layer() -> None:
    vague = {"utils", "helpers", "common", "base", "misc"}
    assert [p.name for p in modules() if p.stem in vague] == []


def test_no_file_is_over_400_lines_without_a_stated_reason() -> None:
    sources = [
        *modules(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "visionloop").rglob("*.j2"),
        *(ROOT / "visionloop").rglob("*.css"),
        *(ROOT / "visionloop").rglob("*.js"),
    ]
    long = {}
    for path in sources:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > LONGEST and not REASON.search(text):
            long[in_repository(path)] = len(text.splitlines())
    assert long == {}, "Say why on a line `# Over 400 lines: …`, or take a thing out of the file"


# --- what an extra brings is what its code imports ------------------------------------------------
