"""The base on disk (format: ``docs/adr/0001-bundle-format.md``)."""

from hydra_edge.bundle.load import Bundle, default_bundle_path, load_bundle
from hydra_edge.bundle.manifest import BundleFile, Manifest, compute_base_id
from hydra_edge.bundle.maps import check_maps

__all__ = [
    "Bundle",
    "BundleFile",
    "Manifest",
    "check_maps",
    "compute_base_id",
    "default_bundle_path",
    "load_bundle",
]
