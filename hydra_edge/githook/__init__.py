"""A git hook that proposes a commit's subject in its author's own style."""

from hydra_edge.githook.description import describe_staged
from hydra_edge.githook.repository import Repository

__all__ = ["Repository", "describe_staged"]
