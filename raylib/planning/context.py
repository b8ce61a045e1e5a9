"""What the stages of a plan share: which stage writes a path, which model it means, samples and prompts, made once."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.logs import source
from raylib.planning.hardware import Hardware
from raylib.planning.model_shape import model_folder
from raylib.planning.sample import PairSample, Row, sample_logs, sample_pairs
from raylib.planning.tokens import Answers, PromptTokens, count_prompts, expected_answers, measured_answers
from raylib.prompts import load_perspective
from raylib.runs import finished_metrics, require_done
from raylib.teacher.encoding import load_tokenizer


class Stage(NamedTuple):
    """One stage of a pipeline; `config` is its job's validated configuration."""

    name: str
    job: str
    config: Any


class Assumptions(NamedTuple):
    """What a plan cannot know; None where it finds a value of its own."""

    answer_tokens: float | None
    sft_share: float
    preference_share: float
    generated_tokens_per_s: float | None
    trained_tokens_per_s: dict[str, float]


@dataclass
class Context:
    """The pipeline, the hardware and the assumptions, and what has been found out so far."""

    stages: list[Stage]
    hardware: Hardware
    assumptions: Assumptions
    sample_rows: int
    pairs: str | None = None  # a pairs table that stands for that of the pipeline
    rationales: tuple[str, ...] = ()  # annotate runs whose answers are as long as these will be
    notes: list[str] = field(default_factory=list)
    _samples: dict[str, PairSample] = field(default_factory=dict)
    _tokenizers: dict[str, Any] = field(default_factory=dict)
    _counts: dict[tuple[Any, ...], PromptTokens] = field(default_factory=dict)
    _measured: dict[str, Answers] | None = None

    def note(self, text: str) -> None:
        """Add an assumption to the plan's list, once."""
        if text not in self.notes:
            self.notes.append(text)

    def writer(self, path: str, *jobs: str) -> Stage | None:
        """The stage of one of these jobs whose output holds `path`."""
        found = [s for s in self.stages if path == s.config.output or path.startswith(s.config.output + "/")]
        return found[0] if found and found[0].job in jobs else None

    def model(self, name_or_path: str) -> str:
        """Directory with configuration and tokenizer of a stage's model; before dapt has run, that of its base.

        Of a student always that of its backbone.
        """
        student = self.writer(name_or_path, "distill")
        if student is not None:
            return self.model(student.config.backbone)
        stage = self.writer(name_or_path, "dapt")
        if stage is None or finished_metrics(stage.config.output) is not None:
            return model_folder(name_or_path)
        if stage.config.model is None:
            raise InputError(
                f"stage {stage.name}: trains a new model and tokenizer, so prompts cannot be counted before it has "
                "run; run it first"
            )
        return self.model(stage.config.model)

    def tokenizer(self, folder: str) -> Any:
        """The tokenizer of a model, loaded once."""
        if folder not in self._tokenizers:
            self._tokenizers[folder] = load_tokenizer(folder)
        return self._tokenizers[folder]

    def sample(self, uri: str) -> PairSample:
        """The sampled pairs of a pairs table: from the table where it exists, else from the logs it is made of."""
        uri = self.pairs or uri
        if uri not in self._samples:
            stage = self.writer(uri, "prepare")
            if stage is None or finished_metrics(uri) is not None:
                require_done(uri)
                self._samples[uri] = sample_pairs(uri, self.sample_rows)
            else:
                self._samples[uri] = self._sample_logs(stage)
            sample = self._samples[uri]
            what = "all pairs, so these tokens are exact" if sample.is_complete else "them, scaled up to all"
            self.note(f"prompts are built and counted for {len(sample.rows):,} pairs of {uri}: {what}")
        return self._samples[uri]

    def _sample_logs(self, stage: Stage) -> PairSample:
        config = stage.config
        market = self.writer(config.input, "market")
        if market and finished_metrics(market.config.output) is None:
            raise InputError(
                f"{config.input}: stage {market.name} writes the logs and has not run, so there is nothing to sample; "
                "run it first (it takes seconds), or name a prepared table with --pairs RUN"
            )
        require_done(config.input)
        is_esci = config.format == "esci"
        plan = source.plan_esci(config.input) if is_esci else source.plan_logs(config.input, config.on_bad_file)
        sample = sample_logs(
            plan,
            config.input,
            LabelSchema.load(config.label_schema),
            self.sample_rows,
            max_query_chars=config.max_query_chars,
            max_title_chars=config.max_title_chars,
            on_conflict=config.on_conflict,
            dev_share=config.dev_share,
            test_share=config.test_share,
            seed=config.seed,
        )
        if sample.relative_error:
            self.note(
                f"the number of pairs is estimated from a sample of the queries in {config.input}: standard error "
                f"{sample.relative_error:.1%}; raise sample_rows to narrow it"
            )
        return sample

    def prompts(
        self, folder: str, names: tuple[str, ...], schema_name: str, rows: list[Row], few_shots: int, **settings: Any
    ) -> PromptTokens:
        """`count_prompts` with its inputs loaded; the same prompts of the same pairs are counted once."""
        key = (folder, names, schema_name, few_shots, tuple(row["pair_id"] for row in rows), *settings.items())
        if key not in self._counts:
            schema = LabelSchema.load(schema_name)
            perspectives = [load_perspective(name) for name in names]
            for perspective in perspectives:
                perspective.check(schema, few_shots)
            self._counts[key] = count_prompts(self.tokenizer(folder), perspectives, schema, rows, few_shots, **settings)
        return self._counts[key]

    def answers(self, folder: str, name: str, schema_name: str, max_tokens: int) -> Answers:
        """Expected length of an answer from one perspective; says in the notes where it comes from."""
        if self._measured is None:
            self._measured = {}
            for uri in self.rationales:
                self._measured |= measured_answers(uri)
        perspective = load_perspective(name)
        found = self._measured.get(perspective.name)
        if found is None:
            schema, given = LabelSchema.load(schema_name), self.assumptions.answer_tokens
            found = expected_answers(self.tokenizer(folder), perspective, schema, max_tokens, given)
        verb = "is" if found.source.startswith("measured") else "is ASSUMED to be"
        self.note(f"an answer from {perspective.name} {verb} {found.tokens:.1f} tokens long: {found.source}")
        return found
