"""From raw features to what a head sees: the bundle's learned maps, then its scaling.

The order and meaning of features is the contract between a bundle and this code. A bundle
made for other features is refused, never reinterpreted.
"""

from __future__ import annotations

import numpy as np

from hydra_edge.bundle import Bundle
from hydra_edge.errors import BundleVersionError
from hydra_edge.features.adapter import ADAPTER_FEATURES
from hydra_edge.features.closed import Classifier, borrow, is_within
from hydra_edge.features.reranker import RERANKER_FEATURES
from hydra_edge.spelling import fold_label
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Float2d, Role

# To be raised whenever a feature is computed otherwise: heads of other features do not fit it.
FEATURE_VERSION = 6
LIMIT = 5.0  # scaled features are clipped here: one odd value must not decide a choice
_INTERPRETABLE: dict[Role, tuple[str, ...]] = {
    "reranker": RERANKER_FEATURES,
    "adapter": ADAPTER_FEATURES,
}


def feature_names(role: Role, maps: int = 0) -> tuple[str, ...]:
    """Return the names of a role's features in order; ``maps`` learned ones come last.

    A reranker has two learned blocks (query with the record's input, and with its output).
    """
    sides = ("input", "output") if role == "reranker" else ("candidate",)
    learned = tuple(f"map_{side}_{i}" for side in sides for i in range(maps))
    return _INTERPRETABLE[role] + learned


class FeatureMap:
    """One role's learned bilinear maps, classifiers and scaling, from a bundle.

    Raises
    ------
    BundleVersionError
        If the bundle was made for other features than this release computes.
    """

    def __init__(self, bundle: Bundle, role: Role) -> None:
        self.role: Role = role
        made_for = bundle.manifest.feature_version
        if made_for != FEATURE_VERSION:
            raise BundleVersionError(
                f"The base in {bundle.path} was made for version {made_for} of the features; this "
                f"release computes version {FEATURE_VERSION}. Build the base again, or go "
                "back to the shipped one: hydra-edge bundle use default."
            )
        self._query = self._other = None
        if f"{role}.map.query" in bundle.maps:
            self._query = bundle.array(f"{role}.map.query")  # (k, dim)
            self._other = bundle.array(f"{role}.map.other")  # (k, dim)
        self.names = feature_names(role, 0 if self._query is None else len(self._query))
        found = bundle.features(role)
        if found != self.names:
            odd = sorted(set(found) ^ set(self.names)) or ["their order"]
            raise BundleVersionError(
                f"The base in {bundle.path} has other {role} features than this release "
                f"computes: they differ in {', '.join(odd)}. Expected {len(self.names)} features. "
                "Install the hydra-edge release the base was made for, or build the base again."
            )
        self._classifiers = {
            task: Classifier(
                tuple(map(fold_label, labels)),
                bundle.array(f"adapter.classifier.{task}.weight"),
                bundle.array(f"adapter.classifier.{task}.bias"),
            )
            for task, labels in bundle.manifest.closed_sets.items()
        }
        half_at = bundle.maps.get(f"{role}.half_at")
        self.half_at = 0.0 if half_at is None else float(half_at[0])  # see ``draw_in``
        self._mean = bundle.array(f"{role}.scale.mean")
        self._std = bundle.array(f"{role}.scale.std")

    def learned(self, query: Float1d, others: Float2d) -> Float2d:
        """Compute the learned block ``(P q) * (P' x)``.

        Returns
        -------
        Float2d
            Shape ``(m, k)`` for ``others`` of shape ``(m, dim)``; ``(m, 0)`` without maps.
        """
        if self._query is None or self._other is None:
            return np.zeros((len(others), 0), dtype=np.float32)
        return np.asarray((others @ self._other.T) * (self._query @ query), dtype=np.float32)

    def classifier(self, task: TaskSpec) -> Classifier | None:
        """Return what the base knows of a task's closed set, or of one like it; else None."""
        if task.kind == "text":
            return None
        own = self._classifiers.get(task.name)
        if own is not None and is_within(task, own.labels):
            return own
        return borrow(self._classifiers, task)

    def scale(self, raw: Float2d) -> Float2d:
        """Scale raw features, shape ``(m, d)``, into roughly [-3, 3]."""
        scaled = (raw - self._mean) / self._std
        return np.asarray(np.clip(scaled, -LIMIT, LIMIT), dtype=np.float32)
