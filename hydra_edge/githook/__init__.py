"""A git hook that proposes a commit's subject in its author's own style.

``description`` turns what is staged into a query, ``proposal`` asks for a subject and learns
from the one that was committed, ``privacy`` says whether that is private, ``hooks`` puts the
scripts into a repository.
"""

from hydra_edge.githook.description import describe_staged
from hydra_edge.githook.privacy import as_before, is_private
from hydra_edge.githook.repository import Repository

__all__ = ["Repository", "as_before", "describe_staged", "is_private"]
