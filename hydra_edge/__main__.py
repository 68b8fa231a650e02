"""``python -m hydra_edge`` is ``hydra-edge``."""

from __future__ import annotations

from hydra_edge.cli import main

if __name__ == "__main__":
    main()
