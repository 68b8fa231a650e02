"""A closer look at a base, and another one in its place: ``bundle``."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import options, output
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.session import settings
from hydra_edge.errors import HydraError

if TYPE_CHECKING:
    from hydra_edge.bundle import Bundle
    from hydra_edge.config import Config
    from hydra_edge.paths import Paths
    from hydra_edge.store import Store
    from hydra_edge.types import HeadState, JsonDict

BundlePath = Annotated[
    Path | None,
    typer.Argument(metavar="PATH", help="Folder of a base; default: the one in use."),
]


def size_bytes(bundle: Bundle) -> int:
    """Return how much room the files of a base take."""
    return sum(file.size for file in bundle.manifest.files.values())


def load_base(path: Path | None, config: Config) -> tuple[Bundle, float]:
    """Load and verify a base; return it with the milliseconds it took."""
    from hydra_edge.bundle import load_bundle

    started = time.perf_counter()
    bundle = load_bundle(path or (Path(config.bundle) if config.bundle else None))
    return bundle, (time.perf_counter() - started) * 1000.0


def check_features(bundle: Bundle) -> None:
    """Refuse a base that was made for other features."""
    from hydra_edge.features import FeatureMap

    FeatureMap(bundle, "reranker")
    FeatureMap(bundle, "adapter")


def _check_runs(bundle: Bundle, config: Config) -> None:
    """Refuse a base whose encoder does not run, or that was made for other features."""
    from hydra_edge.encoder import Encoder

    check_features(bundle)
    Encoder(bundle, threads=config.threads).encode(["Is this thing on?"])


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
    bundle, _ = load_base(path, settings()[0])
    manifest = bundle.manifest
    shown: JsonDict = {
        "path": str(bundle.path),
        "base_id": bundle.base_id,
        "format_version": manifest.format_version,
        "feature_version": manifest.feature_version,
        "dim": manifest.dim,
        "pooling": manifest.pooling,
        "max_tokens": manifest.max_tokens,
        "size_bytes": size_bytes(bundle),
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
    bundle, load_ms = load_base(path, config)
    _check_runs(bundle, config)
    if as_json:
        output.write_json({"ok": True, "base_id": bundle.base_id, "load_ms": load_ms})
        return
    output.plain(
        f"{bundle.path} is sound: base {bundle.base_id[:12]}, verified in {load_ms:.0f} ms"
    )


def used_heads(store: Store) -> list[HeadState]:
    """Return the heads in use, whether or not they serve."""
    names = dict.fromkeys((head.task, head.role) for head in store.heads())
    return [head for name in names if (head := store.head(*name)) is not None]


def _fitted_with_another(bundle: Bundle, paths: Paths) -> bool:
    """Tell whether a head that anybody uses was fitted with another base than this."""
    from hydra_edge.store import Store

    for path in sorted(paths.users.glob("*.db")):
        with suppress(HydraError), Store.open(path, create=False) as store:
            if any(head.base_id != bundle.base_id for head in used_heads(store)):
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
    bundle, _ = load_base(None, config)
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
    output.note(f"{said}. Programs that run go on with the base they began with: start them anew.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
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
