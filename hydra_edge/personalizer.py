"""The facade every door calls: add, fit_head, rank, generate, choose, forget.

Owns the order of things, and which thread goes next. It computes nothing itself: ranking,
fitting, choosing, and what may leave for an LLM are the layers below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Self

from hydra_edge.answering import AnswerLog, Pieces, ask, decide, room_for_answer, votes_on
from hydra_edge.arguments import (
    check_count,
    check_flag,
    check_kind,
    check_llm,
    check_seconds,
    check_several,
    check_text,
    check_wishes,
)
from hydra_edge.bundle import Bundle
from hydra_edge.buying import Budget
from hydra_edge.candidates import Callbacks, Draw, Sampling, fit_to_context
from hydra_edge.choosing import Taken, take, take_as, take_elsewhere
from hydra_edge.config import Config, load_config
from hydra_edge.egress import Outgoing, Question, outgoing
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import CancelledError, ClosedError, ConfigError, StoreError
from hydra_edge.fitting import fit_prompts, fit_task, learn
from hydra_edge.forgetting import clear_log_and_choices, forget_records, undo_choice
from hydra_edge.headfile import adopted, exportable, head_from_json, head_to_json
from hydra_edge.learning import LEFT_OF_CHOICE, judged_on, learned
from hydra_edge.llm import LLM
from hydra_edge.paths import Paths, find_paths
from hydra_edge.privatefiles import make_private_dir
from hydra_edge.prompt import Prompt
from hydra_edge.records import check_moment, checked
from hydra_edge.renaming import rename_task
from hydra_edge.resources import Resources
from hydra_edge.sourceprivacy import as_their_source
from hydra_edge.store import LoggedGeneration, Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.turns import FitTurn, StopSignal, stoppable
from hydra_edge.types import (
    DEFAULT_TASK,
    AddResult,
    ChoiceResult,
    Completion,
    FitReport,
    ForgetReceipt,
    Generation,
    HeadState,
    Progress,
    Ranking,
    Record,
    RenameReceipt,
    Role,
    UndoneChoice,
)


def closed_while_adding() -> ClosedError:
    """Say what becomes of records whose adding was under way when it was closed."""
    return ClosedError(
        "Adding has ended: got close() before all records were stored; expected it afterwards. "
        "Whole batches are stored: open it again and add all of them again, which is safe."
    )


class Personalizer:
    """One person's personalization: their history, their heads, and a black-box LLM.

    Use ``open`` (a person's file on this device) or ``from_records`` (in memory), as a
    context manager. One instance may be shared by the threads of a process: answers are
    written one at a time, and while one is, other threads rank, add and choose.

    Callbacks are called by the thread that does the work, ``should_stop`` possibly by others.
    They must be quick, and may ask this object for nothing but a ranking. Any method may raise
    a ``StoreError``, and once ``close`` was called a ``ClosedError``.

    Examples
    --------
    >>> from hydra_edge import Personalizer, Record
    >>> records = [Record("a long text", "a title", task="note_title")]
    >>> with Personalizer.from_records(records) as p:
    ...     p.rank("another text", task="note_title").records[0].record.output
    'a title'
    """

    def __init__(
        self,
        store: Store,
        *,
        user: str,
        config: Config,
        paths: Paths,
        llm: LLM | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.store = store
        self.user = user
        self.config = config
        self.paths = paths
        self._resources = Resources(store, config, paths, llm, encoder)
        self._answers = AnswerLog(store)
        # A thread that holds several takes them in this order: fitting, the LLM's turn, the
        # engine's turn. The latter is never held while the LLM writes.
        self._fitting = FitTurn()
        self._turn = threading.RLock()

    @classmethod
    def open(
        cls,
        user: str | None = None,
        *,
        create: bool = False,
        llm: LLM | None = None,
        config: Config | None = None,
        paths: Paths | None = None,
    ) -> Self:
        """Open a person's file.

        Parameters
        ----------
        user
            Whose; the configured one if None.
        create
            Whether a user nobody knows is created rather than refused.
        llm
            Any object of the ``LLM`` protocol; it stays the caller's to close, and several
            personalizers may be given the same. None: the configured model, opened when first
            needed, one for each personalizer.
        config
            The settings; those of the file and the environment (``load_config``) if None.
        paths
            Where people's files, settings, tasks and models are; ``find_paths()`` if None.

        Raises
        ------
        UnknownUserError
            If there is no such user and ``create`` is False.
        ConfigError
            If an argument is of another kind, a model's name for an LLM, say.
        """
        check_llm(llm)
        check_kind("config", config, Config)
        check_kind("paths", paths, Paths)
        paths = paths or find_paths()
        config = config or load_config(paths)
        name = config.user if user is None else user
        check_text("user", name)
        path = paths.user_file(name)
        if create:
            make_private_dir(paths.users)
        return cls(Store.open(path, create=create), user=name, config=config, paths=paths, llm=llm)

    @classmethod
    def from_records(
        cls,
        records: Iterable[Record],
        *,
        llm: LLM | None = None,
        config: Config | None = None,
        encoder: TextEncoder | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Hold records in memory only; nothing of them is written anywhere.

        Parameters
        ----------
        records
            Any number of them, or none.
        llm
            Any object of the ``LLM`` protocol; it stays the caller's to close, and several
            personalizers may be given the same. None: the configured model, opened when first
            needed, one for each personalizer.
        config
            The settings; those of the file and the environment (``load_config``) if None.
        encoder
            Makes vectors of texts; None: that of the base, one for all personalizers with the
            same ``threads``.
        progress
            Told while the records are added.

        Raises
        ------
        ConfigError
            At the first that is no record, as ``add`` does, or if another argument cannot be used.
        """
        check_llm(llm)
        check_kind("config", config, Config)
        paths = find_paths()
        person = cls(
            Store.in_memory(), user="memory", config=config or load_config(paths), paths=paths,
            llm=llm, encoder=encoder,
        )  # fmt: skip
        try:
            person.add(records, progress=progress)
        except BaseException:
            person.close()
            raise
        return person

    @property
    def bundle(self) -> Bundle:
        """The base, verified."""
        return self._resources.bundle

    @property
    def engine(self) -> Engine:
        """Ranking and pools over this person's records; itself for one thread at a time."""
        return self._resources.engine

    @property
    def llm(self) -> LLM:
        """The LLM, opened on first use; asked by one thread at a time.

        Raises
        ------
        UnknownModelError
            If none is configured or installed; the message says how to get one.
        EgressDeniedError
            If it is remote and this installation is offline.
        """
        return self._resources.llm

    @contextmanager
    def working(self) -> Iterator[None]:
        """Take one's turn at ``engine`` and ``store``, for several steps that belong together.

        Every method takes it for itself; no turn lasts while the LLM writes.
        """
        self.store.check_process()
        with self._turn:
            self._resources.check_open()
            yield

    def task(self, name: str | None = None) -> TaskSpec:
        """Return a task's spec; None means the configured one, else the most used one."""
        if name is not None:
            check_text("task", name)
        with self.working():
            chosen = name or self.config.task
            if not chosen:
                counts = self.store.tasks()
                chosen = max(counts, key=lambda t: counts[t]) if counts else DEFAULT_TASK
            return self.engine.task(chosen)

    def add(
        self,
        records: Record | Iterable[Record],
        *,
        inherit_private: bool = True,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store records, or one by itself; no LLM is asked, nothing is encoded yet.

        Parameters
        ----------
        inherit_private
            Whether what is new of an imported file or folder is private if all that is kept of it
            is; False: only what says so itself.
        progress
            Told of records that are stored.

        Raises
        ------
        ConfigError
            At the first that is no record: its input or output is empty or no text, or its time
            is no moment. Whole batches of those before it are stored.
        """
        self._resources.check_open()
        given = [records] if isinstance(records, Record) else records
        check_several("records", given, "a Record, or several")
        new: Iterable[Record] = map(checked, given)
        if inherit_private:
            new = as_their_source(new, self.store)
        try:
            return self.store.add(new, progress=progress)
        except StoreError as err:
            if self._resources.closing.is_set():  # which does not wait until all are added
                raise closed_while_adding() from err
            raise

    def forget(
        self,
        ids: str | Sequence[str] = (),
        *,
        source: str | None = None,
        task: str | None = None,
        on_erased: Callable[[ForgetReceipt], None] | None = None,
        progress: Progress | None = None,
    ) -> ForgetReceipt:
        """Erase records and everything kept of them, then fit the heads they had taught again.

        ``ids`` names several records, or one by itself; ``source`` or ``task`` all of one. With a
        task go its choices, bought answers, log entries and heads; its task file stays. A fit
        under way in another thread buys no more candidates, and one that waits begins afterwards;
        an answer that was shown one of the records is thrown away.

        Parameters
        ----------
        on_erased
            Called with the receipt once the records are erased, before heads are fitted again;
            also where Ctrl-C comes while their bytes are, which the next opening then erases.
        progress
            Told while answers are looked through for what is to go with the records, if there
            are many, and of the fits, as ``fit_head`` does.

        Raises
        ------
        ConfigError
            If a source and a task are given: all of both would go. Nothing is erased.
        BytesRemainError
            If another program, or a full disk, keeps the bytes from being erased. All else is
            done nevertheless; it holds the receipt, and the next opening erases the bytes.
        HydraError
            What kept heads from being fitted again; its message says that the records are
            erased nevertheless. Until the next fit the marked heads say why none serves.
        RecordNotFoundError
            If an id, the source or the task is unknown; nothing is erased then.
        """
        check_several("ids", ids, "one id as text, or several")
        names = [ids] if isinstance(ids, str) else list(ids)
        for name in names:
            check_text("id", name)
        for name, value in (("source", source), ("task", task)):
            if value is not None:
                check_text(name, value)
        self.store.check_process()
        with self._fitting.to_erase(), self.working():
            return forget_records(
                self._resources, names, source=source, task=task, on_erased=on_erased,
                progress=progress,
            )  # fmt: skip

    def clear_log(
        self,
        *,
        choices: bool = False,
        before: float | None = None,
        generation_id: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Erase the log of answers given, down to the bytes; return how many there were.

        ``choices`` erases those no record was kept of, too, and counts them; the heads they may
        have taught are fitted again without them, or dropped where nothing is left to fit on: the
        newest stored before them then serves again.

        Parameters
        ----------
        before
            Only answers given, and choices made, before that moment, in unix seconds; None: all.
        generation_id
            Only this answer, and what was chosen of it.
        progress
            Told ``("answers", done, total)`` where there are many, which go in portions.

        Raises
        ------
        DiskFullError
            If there is not even room to erase a few at a time; it says how many are gone.
        BytesRemainError
            If another program, or a full disk, keeps the bytes from being erased. All else is
            done nevertheless; it says how many there were, and the next opening erases the bytes.
        HydraError
            What kept heads from being fitted again; its message says that all is erased
            nevertheless.
        """
        check_flag("choices", choices)
        check_moment("before", before)
        if generation_id is not None:
            check_text("generation_id", generation_id)
        if not choices:
            with self.working():
                return self.store.clear_log(
                    before=before, generation_id=generation_id, progress=progress
                )
        self.store.check_process()
        with self._fitting.to_erase(), self.working():
            return clear_log_and_choices(self._resources, before, generation_id, progress)

    def rename_task(
        self, old: str, new: str, *, merge: bool = False, dry_run: bool = False
    ) -> RenameReceipt:
        """Give a task another name: its records, choices, bought answers, log, heads, and file.

        Ids stay as they are. Heads serve as before, unless the base knows one of the names: then a
        fit is due. A task file that other persons' records need, or whose new name is taken, stays.

        Parameters
        ----------
        merge
            Whether a task that has records already may take in those of the other.
        dry_run
            Only count what would be renamed.

        Raises
        ------
        ConfigError
            If the new name is taken, or its answers are others than these.
        UnknownTaskError
            If there is nothing under the old name.
        """
        for name, value in (("old", old), ("new", new)):
            check_text(name, value)
        check_flag("merge", merge)
        check_flag("dry_run", dry_run)
        self.store.check_process()
        with self._fitting.to_erase(), self.working():
            return rename_task(self._resources, old, new, merge=merge, dry_run=dry_run)

    def fit_head(
        self,
        task: str | None = None,
        *,
        calls: int | None = None,
        budget_s: float | None = None,
        use_llm: bool = True,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> FitReport:
        """Fit the reranker's and the adapter's head of a task, and judge whether they help.

        Parameters
        ----------
        calls
            Answers that may be asked of the LLM now, 0 or more.
        budget_s
            Seconds that may be spent asking; for a remote LLM beside ``calls`` only. With
            neither, a local LLM gets 60 s and a remote one is asked nothing: sending history
            away takes an explicit word.
        use_llm
            False: no LLM is opened, and the answers bought earlier are one LLM's: that of the
            head in use; without one, of the LLM given or used last.
        should_stop
            Asked again and again. Once it says True no more answers are bought: the heads are
            fitted on what there is.

        Returns
        -------
        FitReport
            The evidence, what was switched on, and what it cost.

        Raises
        ------
        CancelledError
            If it was stopped before there was anything to fit a head on.
        ConfigError
            If the LLM is remote and a time is all that was said, or another program has fitted
            with another base since this one began.
        """
        check_count("calls", calls)
        check_seconds("budget_s", budget_s)
        check_flag("use_llm", use_llm)
        self.store.check_process()
        with self._fitting.to_fit() as is_ended:
            llm, note = self._resources.llm_to_fit(wanted=use_llm)
            stop = StopSignal(self._resources.is_over, is_ended, should_stop)
            name = self.task(task).name
            model = None
            if llm is None:
                with self.working():
                    model = judged_on(self.store, name, self._resources.llm_name)
            report = fit_task(
                self.engine, name, llm=llm, sampling=Sampling.of(self.config),
                budget=Budget(calls, budget_s), model=model, progress=progress, should_stop=stop,
                turn=self._turn,
            )  # fmt: skip
            return replace(report, notes=(*report.notes, note)) if note else report

    def fit_prompts(
        self,
        task: str | None = None,
        *,
        calls: int | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[str]:
        """Return byte for byte what a fit would send to the LLM, and send nothing.

        Without ``calls`` a remote LLM is sent nothing, and a local one as many as it has time
        for: these are the first of them. ``should_stop`` ends the embedding of records.

        Raises
        ------
        CancelledError
            If it was stopped.
        """
        check_count("calls", calls)
        llm = self.llm
        if calls is None:
            calls = 0 if llm.is_remote else 10 * self.config.candidates
        watched = stoppable(progress, should_stop, "Showing the prompts")
        with self.working():
            return fit_prompts(
                self.engine, self.task(task).name, llm=llm, sampling=Sampling.of(self.config),
                calls=calls, progress=watched,
            )  # fmt: skip

    def rank(
        self,
        query: str,
        *,
        task: str | None = None,
        k: int | None = None,
        hide_private: bool = False,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Ranking:
        """Return the records that would be shown for a query, best first, and why.

        The first time, and after an import, this embeds records: ``progress`` is told,
        and ``should_stop`` asked, which ends it.

        Raises
        ------
        CancelledError
            If it was stopped.
        """
        check_count("k", k, 1)
        check_flag("hide_private", hide_private)
        watched = stoppable(progress, should_stop, "The ranking")
        with self.working():
            shown = self.config.records if k is None else k
            question = self._question(query, task, watched)
            return (question.hiding_private() if hide_private else question).rank(shown)

    def _question(self, query: str, task: str | None, progress: Progress | None) -> Question:
        check_text("query", query)
        with self.working():
            return Question.of(self.engine, self.task(task), query, progress=progress)

    def prompt_for(
        self,
        query: str,
        *,
        task: str | None = None,
        k: int | None = None,
        hide_private: bool = False,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Outgoing:
        """Return the prompt for an LLM this one does not ask, its ranking, and what to say of it.

        Parameters are those of ``rank``. Who asks a remote LLM with it, or hands it to others,
        sets ``hide_private``. What is answered is taken by ``keep_answer``.

        Raises
        ------
        CancelledError
            If it was stopped.
        """
        check_flag("hide_private", hide_private)
        shown = Sampling.of(self.config, shown=k).shown
        watched = stoppable(progress, should_stop, "The prompt")
        with self.working():
            return outgoing(
                self._question(query, task, watched), shown, "", remote=False, no_history=False,
                hide_private=hide_private,
            )  # fmt: skip

    def render_prompts(
        self,
        query: str,
        *,
        task: str | None = None,
        n: int | None = None,
        k: int | None = None,
        max_tokens: int | None = None,
        system: str = "",
        private: bool = False,
        seed: int = 0,
        stream: bool = False,
        on_note: Callable[[str], None] | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[str]:
        """Return byte for byte what ``generate`` would send, and send nothing.

        No history at all for a remote LLM if ``private``, as for ``generate``.
        One prompt, or a second one without records where the base draws a part of the
        candidates so. ``stream``: what it would send if it were given an ``on_token``.
        ``on_note`` is called with what is to be said of what they show, as ``generate`` notes it.
        ``should_stop`` ends the embedding of records. What a remote LLM has no room for, it says
        only when it is asked: such a prompt is shown whole, and is what would be sent first.

        Raises
        ------
        CancelledError
            If it was stopped.
        ContextLengthError
            If a local LLM has no room even for the beginning of the bare query.
        """
        check_wishes(max_tokens, system, seed, private=private, stream=stream)
        sampling = Sampling.of(self.config, n, k)
        watched = stoppable(progress, should_stop, "Showing the prompts")
        question, llm = self._question(query, task, watched), self._resources.llm
        with self.working():
            out = outgoing(
                question, sampling.shown, system, remote=llm.is_remote, no_history=private
            )
            length = int(max_tokens or room_for_answer(out, llm, no_history=private))

            def render(prompt: Prompt) -> str:
                return llm.render(prompt, max_tokens=length, seed=int(seed), stream=stream)

            prompt, shown = fit_to_context(out.prompt, render)
            if on_note is not None:
                for note in out.notes_on(prompt):
                    on_note(note)
            if not self.engine.zero_shot_draws(prompt, sampling.n):
                return [shown]
            return [shown, fit_to_context(prompt.without_shots(), render)[1]]

    def generate(
        self,
        query: str,
        *,
        task: str | None = None,
        n: int | None = None,
        k: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        system: str = "",
        private: bool = False,
        hide_private: bool = False,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
        on_start: Callable[[str], None] | None = None,
        progress: Progress | None = None,
    ) -> Generation:
        """Answer a query: choose records, sample candidates, choose the one that fits.

        Parameters
        ----------
        n, k
            Candidates to sample and records to show; the configured numbers if None.
        private
            No history at all for a remote LLM; a local one is shown the records it otherwise is.
        hide_private
            Answer as if private records were not there: none is shown to the LLM, not even a
            local one, nor helps to choose. For whoever may not see them.
        on_token
            Called with pieces of the answer as they come, which put together are its text; only
            where ``n`` is 1. An answer of a closed set is told whole, once it is chosen.
        should_stop
            Asked again and again while the LLM writes. Once it says True, the candidates that
            are finished are all there will be. It also ends the embedding of records.
        cancelled
            Asked as ``should_stop`` is. Once it says True, nobody waits for the answer any more,
            and nothing is kept of it.
        on_candidate
            Called with each candidate as the LLM finishes it, before any is chosen.
        on_start
            Called once with the id the generation will have, as the LLM begins to be asked:
            whatever could be refused without it has not been.
        progress
            Told while records are embedded that never were: the first time, and after an import.

        Raises
        ------
        BackendError
            If the LLM gave not one answer, or streamed another than it returned.
        CancelledError
            If it was cancelled, or stopped before one was finished, or a record it was shown
            was forgotten, or made private where the LLM is remote or ``hide_private``.
        ConfigError
            If ``n``, ``k`` or ``temperature`` is none a setting can have, or another argument
            cannot be used.
        EgressDeniedError
            If the LLM is remote and this installation is offline.
        """
        check_wishes(max_tokens, system, seed, private=private, hide_private=hide_private)
        sampling = Sampling.of(self.config, n, k, temperature)
        if on_token is not None and sampling.n != 1:
            raise ConfigError(f"Streaming shows one answer: got n = {sampling.n}; expected 1.")
        stop = StopSignal(should_stop, cancelled)
        watched = stoppable(progress, stop, "The answer")
        question, llm = self._question(query, task, watched), self.llm
        with self.working():
            out = outgoing(
                question, sampling.shown, system, remote=llm.is_remote, no_history=private,
                hide_private=hide_private,
            )  # fmt: skip
            votes = votes_on(out, sampling.n) if self.config.early_stop else None
        length = int(max_tokens or room_for_answer(out, llm, no_history=private))
        draw = Draw(sampling.n, sampling.temperature, length, int(seed))
        pieces = None if on_token is None else Pieces(on_token)
        callbacks = Callbacks(
            StopSignal(self._resources.is_over, stop), on_token=pieces, on_candidate=on_candidate
        )
        asked = ask(out, llm, draw, callbacks, on_start=on_start, votes=votes)
        with self.working():
            generation = decide(asked)
            if cancelled is not None and cancelled():
                raise CancelledError("Generating was cancelled. Nothing was kept of it.")
            if self.config.log:
                generation = self._answers.put(generation, llm.name, asked.withdrawn)
            else:
                generation = self._answers.leave_out(generation, asked.withdrawn)
        if pieces is not None:
            pieces.finish(generation.text)
        return self._answers.expire(generation, self.config.log_days)

    def choose(
        self,
        *,
        generation_id: str | None = None,
        pick: int | None = None,
        text: str | None = None,
        keep: bool = True,
        source: str = "choices",
        hide_private: bool = False,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> ChoiceResult:
        """Learn from the answer the user took, or from what they made of it, at once.

        Parameters
        ----------
        generation_id
            Which answer; the last one if None.
        pick
            The candidate taken, counted from 1 in the order of ``Generation.candidates``.
        text
            The answer as the user edited it; with ``pick`` None.
        keep
            Whether query and answer become a record of the history. One that was kept of an
            earlier choice follows this one either way.
        source
            What that record comes from; ``forget`` takes back what came from one.
        hide_private
            Whether it was taken where no private record may be seen. An edited text is then not
            kept as private because only private records have it as their label: whoever guessed
            it could tell.
        progress, should_stop
            As in ``rank``. To stop it ends the learning only: what was chosen is kept by then.

        Returns
        -------
        ChoiceResult
            The adapter head's new version: one Newton step from the one before. To choose again
            takes the step before back, or fits the head anew where others followed it; to say
            the same again changes nothing. None where the choice can teach nothing: the task no
            longer has such answers.

        Raises
        ------
        CancelledError
            If it was stopped: the next fit learns from the choice.
        """
        check_count("pick", pick)
        for name, value in (("generation_id", generation_id), ("text", text)):
            if value is not None:
                check_text(name, value)
        check_text("source", source)
        check_flag("keep", keep)
        check_flag("hide_private", hide_private)
        with self.working():
            if generation_id is None:
                self._answers.make_up()
            taken = take(
                self.engine, generation_id, pick, text, source,
                keep=keep, hide_private=hide_private,
            )  # fmt: skip
            return self._learn(taken, progress, should_stop)

    def _learn(
        self,
        taken: Taken,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> ChoiceResult:
        """Learn from a choice that is stored; what keeps it from being learned says so."""
        watched = stoppable(progress, should_stop, "Learning from the choice", LEFT_OF_CHOICE)
        try:
            return learn(self.engine, taken, progress=watched)
        except StoreError as err:  # the disk is full, say
            is_kept = False
            with suppress(StoreError):
                is_kept = self.store.choice(taken.choice.generation_id) == taken.choice
            if not is_kept:
                raise
            raise type(err)(f"{err} {LEFT_OF_CHOICE}") from err

    def choose_as(
        self,
        record_of: Callable[[LoggedGeneration], Record | None],
        *,
        generation_id: str,
        pick: int | None = None,
        text: str | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> ChoiceResult:
        """Learn from what the user took of an answer, as ``choose`` does, and keep it your way.

        Parameters
        ----------
        record_of
            Makes the record to keep (a commit, a sent mail) of the answer it is given, or returns
            None to keep none. Called once, while no other program can write: record and choice
            are stored, or neither. Whether it is private is yours to say.
        generation_id, pick, text
            As in ``choose``, but which answer must be said. Both ``pick`` and ``text`` where a
            candidate was taken that is spelled so elsewhere, in one line, say.
        progress, should_stop
            As in ``choose``.

        Raises
        ------
        CancelledError
            If it was stopped: the next fit learns from the choice.
        """
        check_count("pick", pick)
        check_text("generation_id", generation_id)
        if text is not None:
            check_text("text", text)
        with self.working():
            taken = take_as(self.engine, generation_id, pick, text, record_of)
            return self._learn(taken, progress, should_stop)

    def keep_answer(
        self,
        query: str,
        text: str,
        *,
        prompt_id: str,
        record_ids: Sequence[str],
        task: str | None = None,
        source: str = "choices",
        hide_private: bool = False,
    ) -> ChoiceResult:
        """Keep what the user took of another LLM's answer, to a prompt of ``prompt_for``.

        There are no candidates a head could learn from: it becomes a record, which ranks from now
        on and is fitted on. It is private if it may repeat what is.

        Parameters
        ----------
        text
            The answer as the user took it.
        prompt_id
            Names the prompt, as you like: of each, the last answer counts.
        record_ids
            What the prompt showed (``Outgoing.prompt.record_ids``): what is kept becomes private
            with one of these records.
        source, hide_private
            As in ``choose``.
        """
        given = {"query": query, "text": text, "prompt_id": prompt_id, "source": source}
        for name, value in given.items():
            check_text(name, value)
        check_several("record_ids", record_ids, "several ids")
        check_flag("hide_private", hide_private)
        engine = self.engine  # before the file is held: it may still have to be opened
        with self.working():
            taken = take_elsewhere(
                engine, prompt_id, self.task(task).name, query, record_ids, text, source,
                hide_private=hide_private,
            )  # fmt: skip
            return learned(taken.choice, None)

    def undo_choice(
        self, *, generation_id: str | None = None, progress: Progress | None = None
    ) -> UndoneChoice:
        """Take back what was chosen of an answer: of which, or None for the last choice made.

        The choice goes, the record kept of it unless it was changed, and the head's step; heads
        that learned from it otherwise are fitted again without, as ``forget`` does. The answer
        itself stays in the log, to be chosen from.

        Raises
        ------
        ConfigError
            If there is no such choice.
        HydraError
            What kept heads from being fitted again; the choice is taken back nevertheless.
        """
        if generation_id is not None:
            check_text("generation_id", generation_id)
        self.store.check_process()
        with self._fitting.to_erase(), self.working():
            return undo_choice(self._resources, generation_id, progress)

    def export_head(self, task: str | None, role: Role) -> str:
        """Return a head as JSON text: weights and evidence, no text of the history.

        Raises
        ------
        ConfigError
            If there is none, or it has learned from something that was forgotten.
        """
        with self.working():
            return head_to_json(exportable(self.store, self.task(task).name, role))

    def import_head(self, text: str) -> HeadState:
        """Store a head exported elsewhere as the newest version.

        It serves at once, as its ``switch`` says: it is meant for one's own from another device.
        ``store.rollback_head`` takes it back.

        Raises
        ------
        BaseMismatchError
            If it belongs to another base.
        ConfigError
            If the text is no head, or one no answer could be given with.
        """
        check_text("text", text)
        state = adopted(head_from_json(text), self.bundle)
        with self.working():
            return self.store.save_head(state)

    def close(self) -> None:
        """Close the store, and the LLM if it was opened here; closing twice is harmless.

        An answer or a fit under way in another thread is told to stop, and waited for.
        """
        if self.store.is_of_parent:  # whose threads hold the locks
            self.store.close()
            return
        self._resources.closing.set()
        with self._fitting.held():
            self._resources.close_llm(self._turn)
            with self._turn:
                self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
