"""The shipped manifest's figures come from the answers that are kept beside the code.

Needs the training histories (``HYDRA_EDGE_TRAINING_DATA``, or ``../shared/data`` beside the
checkout); without them there is nothing to compare with, and the test says so.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from export.cache import answers_file, open_cached
from export.data import by_task, read_users
from export.episodes import pool_episodes
from export.label import jobs_of, pools_kept, prepare_pools
from export.mine import Plan, questions_for
from export.shown import read_shown
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder
from hydra_edge.features import ADAPTER_FEATURES

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HYDRA_EDGE_TRAINING_DATA", ROOT.parent / "shared" / "data"))
TASK = "movie_tag"
FILE = DATA / f"{TASK}.train.jsonl.gz"


@pytest.mark.skipif(not FILE.exists(), reason="the training histories are not here")
def test_shipped_figures_come_from_the_kept_answers() -> None:
    users = by_task(read_users([FILE]))
    bundle, plan = load_bundle(None), Plan()
    encoder = Encoder(bundle)
    jobs = [job for llm in plan.llms for job in jobs_of(questions_for(users, llm, plan), users)]
    folder = ROOT / "export" / "answers"
    caches = {
        llm.name: open_cached(llm.name, answers_file(folder, llm.name), replay=True)
        for llm in plan.llms
    }
    asks = prepare_pools(bundle, encoder, jobs, shown=read_shown(folder))
    pools = list(pools_kept(caches, asks))
    by_name = {(u.task, u.user): u for u in users[TASK]}
    # The shipped base scales features; greedy is above its mean where it is the first choice.
    episodes = pool_episodes(pools, by_name, bundle, encoder, lambda *_: None)
    greedy = ADAPTER_FEATURES.index("greedy")
    first = [e.utilities[np.argmax(e.raw[:, greedy])] for u in episodes for e in u.episodes]
    stated = bundle.manifest.quality["adapter"][TASK]
    assert len(first) == stated["queries"]
    assert float(np.mean(first)) == pytest.approx(stated["utility"]["baseline"], abs=5e-5)
