"""Is everything in order? ``doctor``."""

from __future__ import annotations

import platform
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from hydra_edge import __version__
from hydra_edge.cli import options, output, views
from hydra_edge.cli.bundle import check_features, load_base, size_bytes, used_heads
from hydra_edge.cli.group import put
from hydra_edge.cli.heads import rollback_command, why_idle
from hydra_edge.errors import ConfigError, HydraError, UnknownModelError

if TYPE_CHECKING:
    from hydra_edge.bundle import Bundle
    from hydra_edge.config import Config
    from hydra_edge.paths import Paths
    from hydra_edge.store import Store
    from hydra_edge.types import HeadState

LOW_DISK_BYTES = 200_000_000
# 2025-01-01: no release is older. A device without a clock of its own begins in 1970, say.
_EARLIEST_S = 1_735_689_600.0


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


def _look_at_clock() -> Finding:
    now = time.time()
    said = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < _EARLIEST_S:
        return Finding(
            "clock",
            "broken",
            f"it says {said}, before there was a hydra-edge: no time is taken of records that are "
            "newer than that. Set it, then import again what was imported meanwhile",
        )
    return Finding("clock", "ok", said)


def _look_at_cache(paths: Paths) -> Finding:
    used = 0
    with suppress(OSError):  # a part of it is gone meanwhile
        for file in paths.cache.rglob("*"):
            used += file.stat().st_size if file.is_file() else 0
    return Finding("cache", "ok", f"{paths.cache}, {views.size(used)}")


def _look_at_base(config: Config) -> tuple[list[Finding], Bundle | None]:
    """Look at the base and its encoder; return it, too, as it is loaded once for all looks."""
    try:
        bundle, load_ms = load_base(None, config)
    except HydraError as err:
        return [Finding(name, "broken", str(err)) for name in ("base", "encoder")], None
    encoder = _try("encoder", partial(_look_at_encoder, bundle, config))
    base = _try("base", partial(_look_at_features, bundle, load_ms))
    if base.state == "ok" and encoder.state == "broken":  # a base that does not run is none
        base = replace(encoder, name="base")
    return [base, encoder], bundle


def _look_at_features(bundle: Bundle, load_ms: float) -> Finding:
    check_features(bundle)
    detail = f"{bundle.base_id[:12]}, {views.size(size_bytes(bundle))}, {load_ms:.0f} ms"
    return Finding("base", "ok", f"{detail}, {bundle.path}")


def _look_at_encoder(bundle: Bundle, config: Config) -> Finding:
    from hydra_edge.encoder import Encoder

    encoder = Encoder(bundle, threads=config.threads)
    started = time.perf_counter()
    encoder.encode(["Is this thing on?"])
    first_ms = (time.perf_counter() - started) * 1000.0
    return Finding("encoder", "ok", f"{encoder.dim} dimensions, first text in {first_ms:.0f} ms")


def look_at_llm(config: Config, paths: Paths) -> Finding:
    """Look at the LLM of the settings: a local one is opened, a remote one is not asked."""
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
    if llm.name == "smollm2":
        return Finding(
            "llm",
            "advice",
            f"{detail}, as shipped: the copy that reads prompts in half the time cannot be made in "
            f"{paths.cache / 'models'}. Expected a place for 200 MB that you may write to; on "
            "Windows its name has to be ASCII.",
        )
    return Finding("llm", "ok", detail)


def _idle_heads(store: Store, paths: Paths, bundle: Bundle | None) -> list[tuple[HeadState, str]]:
    """Return the heads in use that do not serve, and why; see ``why_idle``."""
    from hydra_edge.encoder import Encoder
    from hydra_edge.engine import Engine
    from hydra_edge.taskfile import read_task_dir

    used = used_heads(store)
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


def _ahead(count: int, user: str) -> str:
    dated = "is dated" if count == 1 else "are dated"
    return (
        f"{count} {dated} in the future, as by a clock that was wrong, and counted as the newest "
        f"until then (hydra-edge history list --user {shlex.quote(user)} shows them first). Import "
        "them again with their right times, add them again with --id and --time (answers you "
        "chose, too), or forget them"
    )


def _look_at_user(path: Path, paths: Paths, bundle: Bundle | None) -> Finding:
    from hydra_edge.store import Store
    from hydra_edge.store.restore import kept_copies
    from hydra_edge.store.times import AHEAD_S

    user = path.stem
    name = f"user {user}"
    with Store.open(path, create=False) as store:
        faults = store.check()
        if any("search index" in fault for fault in faults):
            faults.append(f"Run hydra-edge history reindex --user {shlex.quote(user)}.")
        if faults:
            return Finding(name, "broken", " ".join(faults))
        detail = f"{views.plural(store.count(), 'record')}, {views.size(store.size_bytes())}"
        if copies := kept_copies(path):
            detail += f"; kept from before a restore: {', '.join(map(str, copies))}"
        ahead = store.count() - store.count(until=time.time() + AHEAD_S)
        if ahead > 0:
            detail += f"; {_ahead(ahead, user)}"
        if not (idle := _idle_heads(store, paths, bundle)):
            return Finding(name, "advice" if ahead > 0 else "ok", detail)
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
        _look_at_clock(),
    ]
    looks, bundle = _look_at_base(config)
    found += [*looks, _try("llm", lambda: look_at_llm(config, paths))]
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


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    put(app, "doctor", doctor, "hydra-edge doctor", "hydra-edge doctor --json")
