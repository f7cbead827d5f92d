"""The house rules that can be read off the source: who imports whom, who keeps what, how long things are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import personalive

ROOT = Path(personalive.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
# Imports run from a lower number to the same or a higher one. Parts of one level may use each other one way.
LEVELS = {
    **dict.fromkeys(("__main__", "cli"), 0),
    "cluster": 1,
    "server": 2,
    **dict.fromkeys(("live", "offline", "training", "evaluation"), 3),
    "runtime": 4,
    **dict.fromkeys(("engine", "checkpoints"), 5),
    **dict.fromkeys(("models", "vision", "media", "synthetic"), 6),
    **dict.fromkeys(("certificates", "config", "device", "errors", "progress"), 7),
}
QUESTION_WORDS = {"What", "Whether", "How", "Who", "Whom", "Whose", "Where", "When", "Why"}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_WITH_SIGNATURE_LINES = 400, 60, 80


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top(module: str) -> str:
    """``personalive.vision.canvas`` -> ``vision``; the package itself -> ``""``."""
    return module.partition(".")[2].partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, relative imports and those inside functions included."""
    names = {name_of(other) for other in MODULES}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "personalive")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and node.module.split(".")[0] == "personalive":
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (name if name in names else node.module for name in inside)


def graph() -> dict[str, set[str]]:
    """Top-level parts, and the other parts each imports."""
    edges: dict[str, set[str]] = {}
    for path in MODULES:
        own = top(name_of(path))
        if own:  # the package's own __init__ names the public API lazily
            edges.setdefault(own, set()).update(top(module) for module in imported(path) if top(module) in LEVELS)
    return {part: others - {part} for part, others in edges.items()}


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Nodes that reach themselves."""

    def reached(node: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        for other in edges.get(node, set()) - seen:
            seen = reached(other, seen | {other})
        return seen

    return [node for node in edges if node in reached(node)]


def calls(path: Path, function: str) -> list[ast.Call]:
    """Calls written as ``function``, dotted as in the source."""
    return [n for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) == function]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without signature and docstring: the command line's options are all signature."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


# --- imports ------------------------------------------------------------------------------------------------


def test_every_part_has_a_level():
    parts = {top(name_of(path)) for path in MODULES} - {""}
    assert parts <= LEVELS.keys() | {"assets"}
    assert LEVELS.keys() <= parts  # the walk found the source


def test_imports_run_one_way():
    wrong = [
        f"{part} imports {other}"
        for part, others in graph().items()
        for other in others
        if LEVELS[other] < LEVELS[part]
    ]
    assert wrong == []


def test_parts_do_not_import_each_other_in_circles():
    assert circles(graph()) == []


def test_files_do_not_import_each_other_in_circles():
    edges = {name_of(path): set(imported(path)) - {"personalive"} for path in MODULES if path.parent != ROOT}
    assert len(edges) > 100
    assert circles(edges) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b"]  # circles are noticed


def test_the_engine_needs_no_renderer():
    """Rendering synthetic heads needs numba, which needs a place for its cache."""
    found = {name for path in MODULES if top(name_of(path)) == "engine" for name in imported(path)}
    assert found and "synthetic" not in {top(name) for name in found}
    loaded = modules_after("import personalive.offline.animate, personalive.live.worker")
    assert "personalive.engine.engine" in loaded
    assert loaded.isdisjoint({"numba", "personalive.synthetic"})


def modules_after(code: str) -> set[str]:
    run = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    loaded = modules_after("import personalive; dir(personalive); personalive.__version__")
    assert "personalive" in loaded
    assert loaded.isdisjoint({"torch", "numpy", "cv2", "av", "diffusers", "transformers", "huggingface_hub"})


def test_slow_libraries_are_imported_inside_functions_only():
    slow = {"diffusers", "transformers", "huggingface_hub", "accelerate", "ray"}
    found = []
    for path in MODULES:
        for node in tree(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{name_of(path)}: {name}" for name in names if name.split(".")[0] in slow]
    assert found == []


def test_only_the_cluster_uses_ray():
    using = {
        top(name_of(path))
        for path in MODULES
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "ray" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray")
    }
    assert using == {"cluster"}


def test_modules_of_networks_touch_neither_files_nor_the_environment():
    banned = {"os", "pathlib", "json", "safetensors", "io", "time", "socket", "urllib"}
    found = []
    for path in (p for p in MODULES if top(name_of(p)) == "models"):
        for node in ast.walk(tree(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{name_of(path)}: {name}" for name in names if name.split(".")[0] in banned]
    assert found == []


# --- safety -------------------------------------------------------------------------------------------------


def test_nothing_is_unpickled():
    for path in MODULES:
        for call in calls(path, "torch.load"):
            only = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("weights_only")
            assert only == "True", f"{name_of(path)}:{call.lineno}"
        for call in calls(path, "np.load"):
            allowed = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("allow_pickle", "False")
            assert allowed == "False", f"{name_of(path)}:{call.lineno}"
        for banned in ("pickle.load", "pickle.loads", "eval", "exec"):
            assert calls(path, banned) == [], f"{name_of(path)}: {banned}"


def test_no_exception_is_caught_blindly():
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            where = f"{name_of(path)}:{node.lineno}"
            assert node.type is not None, where
            if ast.unparse(node.type) in ("Exception", "BaseException"):
                # it goes on, or what it was is told
                assert node.name or any(isinstance(n, ast.Raise) for n in ast.walk(node)), where


def test_only_the_command_line_prints():
    found = [
        f"{name_of(path)}:{call.lineno}"
        for path in MODULES
        if top(name_of(path)) != "cli"
        for call in calls(path, "print")
    ]
    assert found == []


def test_nothing_seeds_globally():
    for path in MODULES:
        for banned in ("np.random.seed", "random.seed", "torch.cuda.manual_seed_all"):
            assert calls(path, banned) == [], name_of(path)
        guarded = {
            id(call)
            for node in ast.walk(tree(path))
            if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0])
            for call in ast.walk(node)
        }
        assert all(id(call) in guarded for call in calls(path, "torch.manual_seed")), name_of(path)


# --- one engine, and states that are values -----------------------------------------------------------------


def test_only_the_engine_denoises_and_one_module_calls_the_denoiser():
    attributes = {
        name_of(path): {
            n.func.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and hasattr(n.func, "attr")
        }
        for path in MODULES
    }
    assert [name for name, called in attributes.items() if "denoise" in called] == ["personalive.engine.engine"]
    callers = {
        name_of(path)
        for path in MODULES
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and (
            call.func.attr in ("denoising_unet", "unet", "denoiser")
            or ast.unparse(call.func) in ("unet.features", "self.unet.features")
        )
    }
    # Image-level training has no stream: it shows the net single frames, without its temporal modules.
    assert callers == {
        "personalive.engine.backend",
        "personalive.runtime.programs",  # the exported whole call, by the same module
        "personalive.training.stages.denoise",  # and windows of published sliding training, which no engine runs
    }


@pytest.mark.parametrize("name", ["forward", "step", "advance", "start", "flush", "stream", "decode"])
def test_state_is_never_kept_on_networks_or_engine(name: str):
    for path in MODULES:
        if top(name_of(path)) not in ("models", "engine"):
            continue
        for function in functions(path):
            if function.name != name:
                continue
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                kept = [t for t in targets if isinstance(t, ast.Attribute) and ast.unparse(t.value) == "self"]
                assert kept == [], f"{name_of(path)}:{function.lineno}"


def test_no_hooks_tie_networks_together():
    for path in MODULES:
        if top(name_of(path)) in ("models", "engine"):
            source = path.read_text(encoding="utf-8")
            assert "register_forward" not in source, name_of(path)
            assert ".forward = " not in source, name_of(path)


# --- size ---------------------------------------------------------------------------------------------------


def test_files_and_functions_are_short():
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_FILE_LINES, name_of(path)
        for function in functions(path):
            where = f"{name_of(path)}:{function.lineno} {function.name}"
            assert body_lines(function) < MAX_FUNCTION_LINES, where
            assert (function.end_lineno or 0) - function.lineno < MAX_WITH_SIGNATURE_LINES, where


def test_every_module_has_a_docstring():
    assert [name_of(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_levels_are_ordered_as_written():
    values = list(LEVELS.values())
    assert all(one <= other for one, other in pairwise(values))


def test_docstrings_begin_with_a_noun_or_a_verb():
    """ "Return the pose", "Pose of the head": not "What the head does"."""
    wrong = []
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "-").split()[0].strip(":,.")
                wrong += [f"{name_of(path)}: {first}"] if first in QUESTION_WORDS else []
    assert wrong == []
