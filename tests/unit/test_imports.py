"""What is loaded when: a light start, and nothing of the server side ever."""

import json
import os
import subprocess
import sys

import pytest

# Nothing here is needed to print help; each costs a person waiting time at every start.
HEAVY = {
    "filelock", "httpx2", "keyring", "llama_cpp", "numpy", "onnxruntime", "platformdirs",
    "pydantic", "rank_bm25", "rich", "safetensors", "sqlite3", "tokenizers", "tomlkit",
}  # fmt: skip
# Belongs to building a base or to other people's SDKs, never to the device.
FOREIGN = {
    "openai", "optimum", "pandas", "scipy", "sklearn", "tensorflow", "torch", "transformers",
}  # fmt: skip
REPORT = """
import json, sys
from hydra_edge.cli import main
sys.argv = ["hydra-edge", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as stop:
    code = stop.code
loaded = sorted({name.partition(".")[0] for name in sys.modules})
sys.stderr.write("\\n" + json.dumps({"code": code or 0, "loaded": loaded}))
"""


def run(home, *args):
    """Run a command in a process of its own; return its exit code and the packages loaded."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, json.dumps(args)],
        env={**os.environ, "HYDRA_EDGE_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stderr.splitlines()[-1])
    return report["code"], set(report["loaded"])


@pytest.mark.parametrize("args", [["--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(tmp_path, args):
    code, loaded = run(tmp_path, *args)

    assert code == 0
    assert "typer" in loaded
    assert not loaded & HEAVY
    assert not loaded & FOREIGN


def test_help_of_a_command_loads_no_engine(tmp_path):
    code, loaded = run(tmp_path, "generate", "--help")

    assert code == 0
    assert not loaded & (HEAVY - {"pydantic"})  # typer itself reads options with it


def test_history_list_needs_no_engine(tmp_path):
    assert run(tmp_path, "add", "a text", "a title")[0] == 0
    code, loaded = run(tmp_path, "history", "list")

    assert code == 0
    assert not loaded & {"httpx2", "keyring", "llama_cpp", "onnxruntime", "tokenizers"}


def test_rank_never_loads_what_the_device_must_not_need(tmp_path):
    assert run(tmp_path, "add", "a text about parsers", "Fix parser")[0] == 0
    code, loaded = run(tmp_path, "rank", "the parser fails", "--json")

    assert code == 0
    assert {"numpy", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & FOREIGN
    assert not loaded & {"httpx2", "keyring", "llama_cpp"}


@pytest.mark.parametrize("name", ["Personalizer", "AsyncPersonalizer"])
def test_importing_the_api_loads_neither_encoder_nor_llm(name):
    code = f"import json, sys; from hydra_edge import {name}; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in json.loads(done.stdout)}

    assert "numpy" in loaded
    assert not loaded & (HEAVY - {"numpy", "sqlite3"})
    assert not loaded & FOREIGN


def test_importing_the_package_loads_nothing_of_it():
    code = "import sys, hydra_edge; print([m for m in sys.modules if m.startswith('hydra_edge.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_package_exports_what_it_names():
    import hydra_edge

    assert {name for name in hydra_edge.__all__ if hasattr(hydra_edge, name)} == {
        "AsyncPersonalizer", "HydraError", "Personalizer", "Record", "__version__",
    }  # fmt: skip
    assert set(hydra_edge.__all__) <= set(dir(hydra_edge))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hydra_edge.nothing  # noqa: B018 - looking it up is what is tested
