"""Stage label of a build: every LLM is asked what it has not been asked yet, as planned.

Owns which prompts are put to an LLM, which of them a replay takes from answers of another
processor, and when the stage is done. How a prompt is made and answered is ``export.label``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from export.cache import CachedLLM, Spent, answer_rows, answers_file
from export.data import sha256_of
from export.label import (
    Ask,
    Job,
    ask_all,
    jobs_of,
    pools_kept,
    prepare_pools,
    prepare_records,
    records_kept,
    shown_by,
    unanswered,
)
from export.labels import PoolLabel, RecordLabel, write_labels
from export.mine import Questions, read_plan, stated_names
from export.shown import SHOWN_FILE, add_shown, read_shown
from export.stages import Say
from export.workshop import PLAN_FILE, Workshop, read_json, write_json
from hydra_edge.types import JsonDict, Progress, text_hash

POOLS_FILE, RECORDS_FILE, REPORT_FILE = "pools.jsonl.gz", "records.jsonl.gz", "report.json"
# What the run that made the stage has cost. Nothing is made from it: a replay, which costs nothing,
# is to make the same base.
SPENT_FILE = "spent.json"


@dataclass(frozen=True)
class Asking:
    """One build's stage; ``open_llm`` is told a spec, and whether to open its answers alone."""

    shop: Workshop
    open_llm: Callable[[str, bool], CachedLLM]
    progress: Progress
    say: Say

    def run(self, folder: Path) -> None:
        """Ask all LLMs of the plan, and write down all they ever answered of it."""
        pools: list[PoolLabel] = []
        records: list[RecordLabel] = []
        report: JsonDict = {}
        spent: JsonDict = {}
        for questions in read_plan(self.shop.at("mine", PLAN_FILE)):
            report[questions.llm] = self._ask(questions, pools, records, spent)
        write_labels(folder / POOLS_FILE, pools)
        write_labels(folder / RECORDS_FILE, records)
        write_json(folder / REPORT_FILE, report)
        write_json(folder / SPENT_FILE, spent)

    def answers(self) -> JsonDict:
        """Describe what is kept of LLMs: their answers, packed or not, and what they were shown."""
        settings = self.shop.settings
        folder, llms = settings.answers, settings.plan.llms
        names = stated_names(llm.name for llm in llms)
        rows = {own: answer_rows(answers_file(folder, spec)) for spec, own in names.items()}
        marks: JsonDict = {name: text_hash("\n".join(kept.values())) for name, kept in rows.items()}
        shown = folder / SHOWN_FILE
        return marks | ({SHOWN_FILE: sha256_of(shown)} if shown.exists() else {})

    def unanswered(self, folder: Path) -> str:
        """Say what an LLM could still be asked; a replay leaves that open."""
        left = sum(figures["unanswered"] for figures in read_json(folder / REPORT_FILE).values())
        replay = self.shop.settings.replay
        return f"for {left:,} prompts are not answered" if left and not replay else ""

    def _ask(
        self,
        questions: Questions,
        pools: list[PoolLabel],
        records: list[RecordLabel],
        spent: JsonDict,
    ) -> JsonDict:
        """Ask one LLM what it has not been asked, and add all that is kept, and what it cost."""
        spec, base, settings = questions.llm, self.shop.first_base(), self.shop.settings
        llm, asked = self.open_llm(spec, True), 0
        asks = self._asks(llm, jobs_of(questions, self.shop.users))
        jobs = jobs_of(questions, self.shop.users, by_record=True)
        singles = prepare_records(base, self.shop.encoder, jobs, questions.records, self.progress)
        self.shop.encoder.save()
        if not settings.replay and unanswered(llm, [*asks, *singles]):
            llm = self.open_llm(spec, False)
            try:
                asked += ask_all(llm, asks, self.progress, f"{spec}: pools")
                asked += ask_all(llm, singles, self.progress, f"{spec}: single records")
            finally:  # of what is stopped is told, too, what it has cost
                llm.close()
                spent[spec] = self._told(spec, llm.spent)
        kept, single = list(pools_kept({spec: llm}, asks)), list(records_kept({spec: llm}, singles))
        pools += kept
        records += single
        if not settings.replay:
            missing = set(unanswered(llm, asks))
            answered = shown_by(ask for i, ask in enumerate(asks) if i not in missing)
            add_shown(settings.answers, answered)
        left = len(unanswered(llm, [*asks, *singles]))
        self.say(
            f"label: {spec} answered {asked:,} prompts anew; {len(kept):,} pools of {len(asks):,} "
            f"planned, {len(single):,} single records of {len(singles):,}, {left:,} not answered"
        )
        return {
            "name": llm.name, "pools_planned": len(asks), "pools": len(kept),
            "records_planned": len(singles), "records": len(single), "unanswered": left,
        }  # fmt: skip

    def _told(self, spec: str, spent: Spent) -> JsonDict:
        """Say what asking an LLM has cost, and return it as it is written down."""
        self.say(
            f"label: {spec} was sent {spent.prompts:,} prompts in {spent.requests:,} requests: "
            f"{spent.prompt_tokens:,} prompt tokens, {spent.answer_tokens:,} answer tokens, "
            f"{spent.seconds:,.0f} s"
        )
        return {**asdict(spent), "seconds": round(spent.seconds, 1)}

    def _asks(self, llm: CachedLLM, jobs: Sequence[Job]) -> list[Ask]:
        """Build the prompts of pools; in a replay, those that were answered on another processor.

        There the encoder's last bits were others, and for part of the queries the records chosen.
        """
        base, encoder = self.shop.first_base(), self.shop.encoder
        asks = prepare_pools(base, encoder, jobs, self.progress)
        if not self.shop.settings.replay:
            return asks
        missing = unanswered(llm, asks)
        shown = read_shown(self.shop.settings.answers)
        others = prepare_pools(base, encoder, [jobs[i] for i in missing], self.progress, shown)
        for i, other in zip(missing, others, strict=True):
            asks[i] = other
        return asks
