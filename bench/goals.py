"""What each figure of speed and memory should be; the documentation's tables show them, too.

Owns the targets only: ``bench.latency`` and ``bench.decode`` measure, and say which are met;
``bench.published`` measures what HYDRA as published takes.
"""

# At most, by a figure's place in the result of ``bench.latency``.
AT_MOST = {
    "rank.p50_ms.1000": 8.0, "rank.p50_ms.10000": 12.0, "rank.p50_ms.100000": 40.0,
    "fit.warm_ms": 60.0, "fit.update_ms": 2.0, "startup.help_over_typer": 1.6,
    "startup.import_ms": 150.0, "startup.rank_cold_ms": 450.0, "startup.rss_mb_10k": 180.0,
    "startup.installed_mb": 200.0,
}  # fmt: skip
# At least: ratios over a rival, shares, and rates.
AT_LEAST = {
    "rank.cross_encoder_over_rank": 25.0, "rank.rank_bm25_scan_over_rank_44k": 20.0,
    "fit.sklearn_over_fit": 20.0, "fit.paper_head_over_fit": 1000.0, "fit.cold_ort_share": 0.85,
    "fit.cold.real_token_share": 0.85, "import.records_per_s": 8000.0,
}  # fmt: skip
# How many times less a user's own heads should take than those of HYDRA as published.
PUBLISHED_BYTES, PUBLISHED_SECONDS = 300, 100
# Of decoding, by ratio; those of a bare loop have none.
DECODING = {
    "best8_over_greedy_16": "<= 1.4", "best8_over_greedy_64": "<= 2.0",
    "independent8_over_best8_16": ">= 5", "sequential8_over_best8_16": ">= 1.3",
    "sequential8_over_best8_64": ">= 1.6", "label_best8_over_greedy": "<= 1.15",
    "over_bare_loop": ">= 0.95",
}  # fmt: skip
