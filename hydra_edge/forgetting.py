"""Erasing what was kept of a person, and fitting again the heads it had taught.

Whoever calls sees to it that no other thread fits, or is at the engine, meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import get_args

from hydra_edge.buying import Budget
from hydra_edge.candidates import Sampling
from hydra_edge.choosing import withdraw
from hydra_edge.errors import (
    BytesRemainError,
    ConfigError,
    HydraError,
    RecordNotFoundError,
    StoreError,
    UnknownTaskError,
)
from hydra_edge.fitting import fit_task
from hydra_edge.headreport import model_of
from hydra_edge.records import is_import
from hydra_edge.resources import Resources
from hydra_edge.store import Store, StoredChoice, answer_id
from hydra_edge.types import ForgetReceipt, Progress, Role, UndoneChoice


def forget_records(
    resources: Resources,
    ids: Sequence[str],
    *,
    source: str | None = None,
    task: str | None = None,
    on_erased: Callable[[ForgetReceipt], None] | None = None,
    progress: Progress | None = None,
) -> ForgetReceipt:
    """Erase records and everything kept of them; see ``Personalizer.forget``."""
    if source is not None and task is not None:
        raise ConfigError(
            "Nothing was erased: got a source and a task; expected one of them, as all of it goes. "
            "For records of both, look up their ids by `store.records(task=, source=)`."
        )
    remain: BytesRemainError | None = None
    deleted: list[ForgetReceipt] = []
    try:
        receipt = resources.store.forget(
            ids, source=source, task=task, progress=progress, on_deleted=deleted.append
        )
    except BytesRemainError as err:
        if err.receipt is None:
            raise
        receipt, remain = err.receipt, err
    except BaseException:  # Ctrl-C, while bytes are erased: the records are gone nevertheless
        if deleted and on_erased is not None:
            on_erased(deleted[0])
        raise
    if on_erased is not None:
        on_erased(receipt)
    done = f"The records are erased ({receipt.records})"
    _fit_all_again(resources, receipt.tasks, done, remain, progress)
    return receipt


def clear_log_and_choices(
    resources: Resources,
    before: float | None,
    generation_id: str | None,
    progress: Progress | None,
) -> int:
    """Erase the log of answers, and choices no record was kept of; return how many there were.

    See ``Personalizer.clear_log``.
    """
    store = resources.store
    cleared, fault = 0, None
    try:
        cleared = store.clear_log(
            choices=True, before=before, generation_id=generation_id, progress=progress
        )
    except StoreError as err:  # choices go before the log does: they may be gone nevertheless
        fault = err
    stale = dict.fromkeys(head.task for head in store.heads() if head.stale)
    _fit_all_again(resources, stale, f"The log is erased ({cleared})", fault)
    return cleared


def undo_choice(
    resources: Resources, generation_id: str | None, progress: Progress | None
) -> UndoneChoice:
    """Take a choice back, and fit again the heads that still know it; see ``Personalizer``."""
    store = resources.store
    withdrawn = withdraw(store, generation_id)
    choice = withdrawn.choice
    in_use = (store.head(choice.task, role) for role in get_args(Role))
    stale = any(head is not None and head.stale for head in in_use)
    if stale:
        _fit_all_again(resources, [choice.task], "The choice is taken back", None, progress)
    head = store.head(choice.task, "adapter")
    return UndoneChoice(
        generation_id=choice.generation_id,
        task=choice.task,
        query=choice.query,
        text=choice.text,
        record_id=choice.record_id,
        record_erased=withdrawn.with_record,
        head_version=None if head is None else head.version,
        fitted_again=stale and _can_fit(resources, choice.task),
        record_is_own=withdrawn.with_record or _is_own(store, choice),
    )


def can_fit(store: Store, look_up: Callable[[str], object], task: str) -> bool:
    """Tell whether there is anything left that the heads of a task could learn from.

    ``look_up`` finds a task by its name. It is asked only where choices alone are left: heads that
    have nothing to learn from can go even if the base cannot be opened.
    """
    if store.count(task):
        return True
    if not store.choices(task):
        return False
    try:
        look_up(task)
    except UnknownTaskError:  # its records alone had told what kind of task it is
        return False
    except ConfigError:  # a task file that can be mended
        pass
    return True


def _can_fit(resources: Resources, task: str) -> bool:
    def look_up(name: str) -> object:
        return resources.engine.task(name)

    return can_fit(resources.store, look_up, task)


def _is_own(store: Store, choice: StoredChoice) -> bool:
    """Tell whether the record of a choice was made of it; a commit, say, is there without."""
    name = choice.record_id
    if name is None or not name.startswith(answer_id(choice.generation_id)):
        return False
    with suppress(RecordNotFoundError):  # another program may have forgotten it by now
        return not is_import(store.get(name).source)
    return False


def _fit_all_again(
    resources: Resources,
    tasks: Iterable[str],
    done: str,
    fault: StoreError | None,
    progress: Progress | None = None,
) -> None:
    """Fit the heads of tasks without what was erased; ``done`` is said if one cannot be.

    ``fault``, what kept the erasing from being finished, is raised at the end, and says so, too.
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
        if fault is None:
            raise type(why)(f"{done}, but {message}") from why
        both = f"{fault} Besides, {message}"
        if isinstance(fault, BytesRemainError):
            raise BytesRemainError(both, receipt=fault.receipt, cleared=fault.cleared) from why
        raise type(fault)(both) from why
    if fault is not None:
        raise fault


def _fit_again(resources: Resources, task: str, progress: Progress | None) -> None:
    """Fit the heads of a task without what was forgotten; drop them if nothing is left to fit on.

    The adapter's learns from the answers of the same LLM as before, not of one used earlier.
    """
    if _can_fit(resources, task):
        fit_task(
            resources.engine, task, llm=None, sampling=Sampling.of(resources.config),
            budget=Budget(0, None), model=model_of(resources.store.head(task, "adapter")),
            progress=progress,
        )  # fmt: skip
    else:
        resources.store.drop_stale_heads(task)
