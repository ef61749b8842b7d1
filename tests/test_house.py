"""The rules of the house: who imports what, and that nothing is done at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import ROOT

PROGRAMS = ("lgsrr", "pipelines", "tune")
MAY_IMPORT_OPENAI = 1
"""Files; which one it is, extraction decides."""
MAY_IMPORT_VLLM = ("pipelines/",)


def sources() -> list[Path]:
    return sorted(path for folder in PROGRAMS for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def importers(package: str) -> list[str]:
    """Files that import a package, from the root of the repository."""
    return [
        str(path.relative_to(ROOT))
        for path in sources()
        if any(name.split(".")[0] == package for name in imported(path))
    ]


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources()
        if path.is_relative_to(ROOT / "lgsrr") and path.name != "__init__.py"
    ]


def test_one_file_imports_mlflow() -> None:
    assert importers("mlflow") == ["lgsrr/tracking.py"]


def test_one_file_at_most_imports_openai() -> None:
    assert len(importers("openai")) <= MAY_IMPORT_OPENAI


def test_only_extraction_imports_vllm() -> None:
    assert all(path.startswith(MAY_IMPORT_VLLM) for path in importers("vllm"))


def test_the_library_imports_no_program_and_programs_not_each_other() -> None:
    for path in sources():
        own = path.relative_to(ROOT).parts[0]
        others = {"pipelines", "tune"} - {own}
        assert not {name.split(".")[0] for name in imported(path)} & others, path


def test_nothing_loads_a_pickle() -> None:
    for path in sources():
        assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(imported(path)), path
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load":  # published .bin shards
                assert "weights_only=True" in ast.unparse(call), path


def test_nothing_runs_what_it_reads() -> None:
    """No shell, no eval, no YAML that makes objects, no code that comes along with a model."""
    forbidden = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
    forbidden |= {"marshal.loads", "shelve.open", "subprocess.getoutput", "subprocess.getstatusoutput"}
    switches = {"shell", "allow_pickle", "trust_remote_code", "weights_only"}
    for path in sources():
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            assert ast.unparse(call.func) not in forbidden, f"{path}:{call.lineno}"
            for keyword in call.keywords:
                if keyword.arg in switches and isinstance(keyword.value, ast.Constant):
                    assert keyword.value.value is (keyword.arg == "weights_only"), f"{path}:{call.lineno}"


def test_the_folder_mlflow_does_not_shadow_the_package() -> None:
    program = "import mlflow, pathlib; print(pathlib.Path(mlflow.__file__).parent.parent.name)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "site-packages"
    assert not list((ROOT / "mlflow").glob("*.py"))


def test_no_file_is_named_like_a_module_of_python_or_a_dependency() -> None:
    dependencies = {"ray", "torch", "transformers", "mlflow", "openai", "pandas", "pyarrow", "sklearn", "vllm", "rich"}
    for path in sources():
        # A script's own folder comes first in sys.path, so its neighbours must not hide anything.
        if path.parent == ROOT / "lgsrr" or path.stem.startswith("__"):
            continue
        assert path.stem not in sys.stdlib_module_names | dependencies, path


IMPORT_ALL = """
import importlib, logging, sys, threading
before = list(logging.getLogger().handlers)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert logging.getLogger().handlers == before, logging.getLogger().handlers
assert logging.getLogger("lgsrr").handlers == []
ray = sys.modules.get("ray")
assert ray is None or not ray.is_initialized()
assert "mlflow" not in sys.modules, "mlflow takes seconds and is imported where it is needed"
"""


def test_importing_every_module_does_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules()], cwd=home, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert [str(path) for path in home.rglob("*")] == []


@pytest.mark.parametrize("name", ["lgsrr.predict", "lgsrr.catalog"])
def test_a_command_that_needs_no_torch_to_say_no_does_not_import_it(name: str) -> None:
    program = f"import sys, {name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
