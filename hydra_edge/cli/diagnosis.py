"""Is everything in order? ``doctor``, and a closer look at a base with ``bundle``."""

from __future__ import annotations

import platform
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hydra_edge import __version__
from hydra_edge.cli import options, output, views
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.heads import rollback_command, why_idle
from hydra_edge.cli.session import settings
from hydra_edge.errors import ConfigError, HydraError, UnknownModelError

if TYPE_CHECKING:
    from hydra_edge.bundle import Bundle
    from hydra_edge.config import Config
    from hydra_edge.paths import Paths
    from hydra_edge.store import Store
    from hydra_edge.types import HeadState, JsonDict

LOW_DISK_BYTES = 200_000_000

BundlePath = Annotated[
    Path | None,
    typer.Argument(metavar="PATH", help="Folder of a base; default: the one in use."),
]


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``advice`` is no fault, but worth knowing."""

    name: str
    state: Literal["ok", "advice", "broken"]
    detail: str


def _try(name: str, look: Callable[[], Finding]) -> Finding:
    """Make one look; a fault raised on purpose is a finding, not the end."""
    try:
        return look()
    except HydraError as err:
        return Finding(name, "broken", str(err))


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that exists, even if that is a file."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _look_at_home(paths: Paths) -> Finding:
    import tempfile

    for folder in (paths.data, paths.config):
        try:
            with tempfile.TemporaryFile(dir=_existing(folder)):
                pass
        except OSError as err:
            raise ConfigError(
                f"{folder} cannot be written: {err.strerror or err}. Expected a writable place. "
                "Set HYDRA_EDGE_HOME to one."
            ) from err
    return Finding("home", "ok", f"{paths.data} can be written")


def _look_at_disk(paths: Paths) -> Finding:
    free = shutil.disk_usage(_existing(paths.data)).free
    return Finding("disk", "advice" if free < LOW_DISK_BYTES else "ok", f"{views.size(free)} free")


def _look_at_cache(paths: Paths) -> Finding:
    used = 0
    with suppress(OSError):  # a part of it is gone meanwhile
        for file in paths.cache.rglob("*"):
            used += file.stat().st_size if file.is_file() else 0
    return Finding("cache", "ok", f"{paths.cache}, {views.size(used)}")


def _bundle_bytes(bundle: Bundle) -> int:
    return sum(file.size for file in bundle.manifest.files.values())


def _load(path: Path | None, config: Config) -> tuple[Bundle, float]:
    """Load and verify a base; return it with the milliseconds it took."""
    from hydra_edge.bundle import load_bundle

    started = time.perf_counter()
    bundle = load_bundle(path or (Path(config.bundle) if config.bundle else None))
    return bundle, (time.perf_counter() - started) * 1000.0


def _check_runs(bundle: Bundle, config: Config) -> None:
    """Refuse a base whose encoder does not run, or that was made for other features."""
    from hydra_edge.encoder import Encoder
    from hydra_edge.features import FeatureMap

    FeatureMap(bundle, "reranker")
    FeatureMap(bundle, "adapter")
    Encoder(bundle, threads=config.threads).encode(["Is this thing on?"])


def _look_at_base(config: Config) -> tuple[list[Finding], Bundle | None]:
    """Look at the base and its encoder; return it, too, as it is loaded once for all looks."""
    try:
        bundle, load_ms = _load(None, config)
    except HydraError as err:
        return [Finding(name, "broken", str(err)) for name in ("base", "encoder")], None
    found = [
        _try("base", partial(_look_at_runs, bundle, load_ms, config)),
        _try("encoder", partial(_look_at_encoder, bundle, config)),
    ]
    return found, bundle


def _look_at_runs(bundle: Bundle, load_ms: float, config: Config) -> Finding:
    _check_runs(bundle, config)
    detail = f"{bundle.base_id[:12]}, {views.size(_bundle_bytes(bundle))}, {load_ms:.0f} ms"
    return Finding("base", "ok", f"{detail}, {bundle.path}")


def _look_at_encoder(bundle: Bundle, config: Config) -> Finding:
    from hydra_edge.encoder import Encoder

    encoder = Encoder(bundle, threads=config.threads)
    started = time.perf_counter()
    encoder.encode(["Is this thing on?"])
    first_ms = (time.perf_counter() - started) * 1000.0
    return Finding("encoder", "ok", f"{encoder.dim} dimensions, first text in {first_ms:.0f} ms")


def _look_at_llm(config: Config, paths: Paths) -> Finding:
    from hydra_edge.llm.models import open_llm
    from hydra_edge.llm.tiles import REBUILD

    started = time.perf_counter()
    try:
        llm = open_llm(config.model, config, paths)
    except UnknownModelError as err:
        if config.model:
            raise
        return Finding("llm", "advice", str(err))  # all but answers works without one
    opened_ms = (time.perf_counter() - started) * 1000.0
    kind = "remote; not asked" if llm.is_remote else f"local, opened in {opened_ms:.0f} ms"
    detail = f"{llm.name}, {kind}"
    llm.close()
    if getattr(llm, "without_tiles", False):
        return Finding(
            "llm",
            "advice",
            f"{detail}, but more slowly than it could be: this llama-cpp-python would crash on the "
            "processor's AMX, as GCC 12 built it, and goes without. To build it without AMX, which "
            f"is faster: {REBUILD}",
        )
    return Finding("llm", "ok", detail)


def _used_heads(store: Store) -> list[HeadState]:
    """Return the heads in use, whether or not they serve."""
    names = dict.fromkeys((head.task, head.role) for head in store.heads())
    return [head for name in names if (head := store.head(*name)) is not None]


def _idle_heads(store: Store, paths: Paths, bundle: Bundle | None) -> list[tuple[HeadState, str]]:
    """Return the heads in use that do not serve, and why; see ``why_idle``."""
    from hydra_edge.encoder import Encoder
    from hydra_edge.engine import Engine
    from hydra_edge.taskfile import read_task_dir

    used = _used_heads(store)
    engine = None
    with suppress(HydraError):
        if bundle is not None and used:
            engine = Engine(store, bundle, Encoder(bundle), read_task_dir(paths.tasks))
    return [(head, why) for head, why in zip(used, why_idle(engine, used), strict=True) if why]


def _fit_sees_to(store: Store, head: HeadState) -> bool:
    """Tell whether a fit replaces a head, or drops it; an adapter learns from choices, too."""
    from hydra_edge.fitting import FEWEST_RECORDS

    enough = store.count(head.task) >= FEWEST_RECORDS
    return enough or head.stale or (head.role == "adapter" and bool(store.choices(head.task)))


def _look_at_user(path: Path, paths: Paths, bundle: Bundle | None) -> Finding:
    from hydra_edge.store import Store

    user = path.stem
    name = f"user {user}"
    with Store.open(path, create=False) as store:
        faults = store.check()
        if any("search index" in fault for fault in faults):
            faults.append(f"Run hydra-edge history reindex --user {shlex.quote(user)}.")
        if faults:
            return Finding(name, "broken", " ".join(faults))
        detail = f"{views.plural(store.count(), 'record')}, {views.size(store.size_bytes())}"
        if not (idle := _idle_heads(store, paths, bundle)):
            return Finding(name, "ok", detail)
        few = [head for head, _ in idle if not _fit_sees_to(store, head)]
    detail += "; heads that do not serve: "
    detail += ", ".join(f"{head.task} {head.role} {why}" for head, why in idle)
    if few:
        backs = "; ".join(rollback_command(head.task, head.role, user) for head in few)
        detail += f". Too few records to fit again; take back: {backs}"
    if len(few) < len(idle):
        detail += f". Fit them again: hydra-edge fit-head --user {shlex.quote(user)}"
    return Finding(name, "advice", detail)


def _look_at_tasks(paths: Paths) -> list[Finding]:
    """Look at the user's own task files; nothing is said where there are none."""
    from hydra_edge.taskfile import read_task_dir

    tasks = read_task_dir(paths.tasks)
    found = [Finding(f"task {name}", "ok", str(paths.tasks)) for name in sorted(tasks)]
    broken = sorted(tasks.broken.items())
    return found + [Finding(f"task {name}", "broken", str(err)) for name, err in broken]


def _findings() -> list[Finding]:
    from hydra_edge.config import Config, load_config
    from hydra_edge.paths import find_paths

    paths = find_paths()
    found = [
        Finding("hydra-edge", "ok", __version__),
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
        Finding("data", "ok", str(paths.data)),
        _look_at_cache(paths),
    ]
    try:
        config = load_config(paths)
        found.append(Finding("settings", "ok", str(paths.config_file)))
    except ConfigError as err:
        config = Config()
        found.append(Finding("settings", "broken", str(err)))
    found += [
        _try("home", lambda: _look_at_home(paths)),
        _try("disk", lambda: _look_at_disk(paths)),
    ]
    looks, bundle = _look_at_base(config)
    found += [*looks, _try("llm", lambda: _look_at_llm(config, paths))]
    found += _look_at_tasks(paths)
    for path in sorted(paths.users.glob("*.db")):
        found.append(_try(f"user {path.stem}", partial(_look_at_user, path, paths, bundle)))
    return found


def doctor(as_json: options.AsJson = False) -> None:
    """Check the installation, base, LLM, tasks and users' files."""
    found = _findings()
    broken = [finding for finding in found if finding.state == "broken"]
    if as_json:
        output.write_json({"ok": not broken, "findings": [asdict(f) for f in found]})
    else:
        output.table(("", "", ""), [(f.state, f.name, f.detail) for f in found])
        output.note(
            f"{views.plural(len(broken), 'fault')} found" if broken else "Everything is in order"
        )
    if broken:
        raise typer.Exit(1)


def _entry_text(entry: object) -> str:
    """Say what an entry of a manifest holds; of what is nested deeper, only what it is about."""
    if isinstance(entry, dict):
        nested = any(isinstance(value, dict | list) for value in entry.values())
        return ", ".join(str(key) if nested else f"{key} {value}" for key, value in entry.items())
    if isinstance(entry, list):
        return ", ".join(_entry_text(value) for value in entry)
    return str(entry)


def show_bundle(path: BundlePath = None, as_json: options.AsJson = False) -> None:
    """Show a base: size, quality, parity, origin."""
    bundle, _ = _load(path, settings()[0])
    manifest = bundle.manifest
    shown: JsonDict = {
        "path": str(bundle.path),
        "base_id": bundle.base_id,
        "format_version": manifest.format_version,
        "feature_version": manifest.feature_version,
        "dim": manifest.dim,
        "pooling": manifest.pooling,
        "max_tokens": manifest.max_tokens,
        "size_bytes": _bundle_bytes(bundle),
        "quality": manifest.quality,
        "parity": manifest.parity,
        "provenance": manifest.provenance,
    }
    if as_json:
        output.write_json(shown)
        return
    for name, value in shown.items():
        if not isinstance(value, dict):
            output.plain(f"{name} = {value}")
            continue
        output.heading(name)
        for key, entry in value.items():
            output.plain(f"  {key} = {output.one_line(_entry_text(entry), 200)}")
    output.note("In full: --json")


def verify_bundle(path: BundlePath = None, as_json: options.AsJson = False) -> None:
    """Check every byte of a base, and that it runs."""
    config, _ = settings()
    bundle, load_ms = _load(path, config)
    _check_runs(bundle, config)
    if as_json:
        output.write_json({"ok": True, "base_id": bundle.base_id, "load_ms": load_ms})
        return
    output.plain(
        f"{bundle.path} is sound: base {bundle.base_id[:12]}, verified in {load_ms:.0f} ms"
    )


def _fitted_with_another(bundle: Bundle, paths: Paths) -> bool:
    """Tell whether a head that anybody uses was fitted with another base than this."""
    from hydra_edge.store import Store

    for path in sorted(paths.users.glob("*.db")):
        with suppress(HydraError), Store.open(path, create=False) as store:
            if any(head.base_id != bundle.base_id for head in _used_heads(store)):
                return True
    return False


def use_bundle(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Folder of a base, or `default` for the shipped.")
    ],
) -> None:
    """Use another base from now on, once it is checked."""
    from hydra_edge.config import Config, save_setting
    from hydra_edge.paths import expanded, find_paths
    from hydra_edge.variables import variable_over

    chosen = "" if path in {"", "default"} else str(expanded(path).resolve())
    config = Config(bundle=chosen)
    bundle, _ = _load(None, config)
    _check_runs(bundle, config)
    paths = find_paths()
    save_setting(paths, "bundle", chosen)
    if variable := variable_over("bundle"):
        output.note(
            f"base {bundle.base_id[:12]} written to {paths.config_file}, but {variable} wins over "
            "it: unset that"
        )
        return
    said = f"base {bundle.base_id[:12]} is in use. Records and choices are kept"
    if _fitted_with_another(bundle, paths):
        said += (
            "; until heads are fitted again (hydra-edge fit-head) the shared ones serve in their "
            "place"
        )
    output.note(said)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    put(app, "doctor", doctor, "hydra-edge doctor", "hydra-edge doctor --json")
    group = new_group(
        "Look at the base: the shared encoder and what comes with it.",
        "hydra-edge bundle show",
        "hydra-edge bundle verify ~/bases/mine",
    )
    put(group, "show", show_bundle, "hydra-edge bundle show --json")
    put(group, "verify", verify_bundle, "hydra-edge bundle verify ~/bases/mine")
    put(
        group, "use", use_bundle, "hydra-edge bundle use ~/bases/mine",
        "hydra-edge bundle use default",
    )  # fmt: skip
    app.add_typer(group, name="bundle")
