"""Erasing what was kept of a person, and fitting again the heads it had taught.

Whoever calls sees to it that no other thread fits, or is at the engine, meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hydra_edge.errors import BytesRemainError, HydraError
from hydra_edge.fitting import fit_task
from hydra_edge.learning import model_of
from hydra_edge.pools import Budget, Sampling
from hydra_edge.resources import Resources
from hydra_edge.types import ForgetReceipt, Progress


def forget_records(
    resources: Resources,
    ids: Sequence[str],
    *,
    source: str | None = None,
    on_erased: Callable[[ForgetReceipt], None] | None = None,
    progress: Progress | None = None,
) -> ForgetReceipt:
    """Erase records and everything kept of them; see ``Personalizer.forget``."""
    remain: BytesRemainError | None = None
    try:
        receipt = resources.store.forget(ids, source=source, progress=progress)
    except BytesRemainError as err:
        if err.receipt is None:
            raise
        receipt, remain = err.receipt, err
    if on_erased is not None:
        on_erased(receipt)
    done = f"The records are erased ({receipt.records})"
    _fit_all_again(resources, receipt.tasks, done, remain, progress)
    return receipt


def clear_log_and_choices(resources: Resources, before: float | None) -> int:
    """Erase the log of answers, and choices no record was kept of; return how many there were.

    See ``Personalizer.clear_log``.
    """
    store = resources.store
    remain: BytesRemainError | None = None
    try:
        cleared = store.clear_log(choices=True, before=before)
    except BytesRemainError as err:
        cleared, remain = err.cleared, err
    stale = dict.fromkeys(head.task for head in store.heads() if head.stale)
    _fit_all_again(resources, stale, f"The log is erased ({cleared})", remain)
    return cleared


def _fit_all_again(
    resources: Resources,
    tasks: Iterable[str],
    done: str,
    remain: BytesRemainError | None,
    progress: Progress | None = None,
) -> None:
    """Fit the heads of tasks without what was erased; ``done`` is said if one cannot be.

    ``remain`` is raised at the end, and says so, too.
    """
    failed: dict[str, HydraError] = {}
    for task in tasks:
        try:
            _fit_again(resources, task, progress)
        except HydraError as err:
            failed[task] = err
    if failed:
        why = next(iter(failed.values()))
        fits = "; ".join(f"hydra-edge fit-head --task {task}" for task in failed)
        message = (
            f"the heads of {', '.join(failed)} could not be fitted again: {why} Then run: {fits}"
        )
        if remain is None:
            raise type(why)(f"{done}, but {message}") from why
        raise BytesRemainError(
            f"{remain} Besides, {message}", receipt=remain.receipt, cleared=remain.cleared
        ) from why
    if remain is not None:
        raise remain


def _fit_again(resources: Resources, task: str, progress: Progress | None) -> None:
    """Fit the heads of a task without what was forgotten; drop them if no record is left.

    The adapter's learns from the answers of the same LLM as before, not of one used earlier.
    """
    if resources.store.count(task):
        fit_task(
            resources.engine, task, llm=None, sampling=Sampling.of(resources.config),
            budget=Budget(0, None), model=model_of(resources.store.head(task, "adapter")),
            progress=progress,
        )  # fmt: skip
    else:
        resources.store.drop_stale_heads(task)
