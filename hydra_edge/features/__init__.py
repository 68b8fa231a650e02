"""Pair features: what a head sees of a (query, record) or a (query, candidate)."""

from hydra_edge.features.adapter import ADAPTER_FEATURES, Pool, adapter_features, draw_in
from hydra_edge.features.closed import is_within
from hydra_edge.features.reranker import RERANKER_FEATURES, reranker_features
from hydra_edge.features.scaling import FEATURE_VERSION, FeatureMap, feature_names

__all__ = [
    "ADAPTER_FEATURES",
    "FEATURE_VERSION",
    "RERANKER_FEATURES",
    "FeatureMap",
    "Pool",
    "adapter_features",
    "draw_in",
    "feature_names",
    "is_within",
    "reranker_features",
]
