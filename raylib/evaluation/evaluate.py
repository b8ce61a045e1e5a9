"""All measures of an evaluation, from the tables of earlier jobs to one tree of plain values."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raylib.errors import ConfigError, InputError
from raylib.evaluation.baselines import majority, tfidf_logistic_regression
from raylib.evaluation.inputs import Judged, read_answers, read_ensemble, read_judged
from raylib.evaluation.students import compare, summarize
from raylib.evaluation.teachers import summarize_teacher
from raylib.evaluation.votes import compare_teachers, perspective_votes
from raylib.labels import LabelSchema
from raylib.runs import finished_metrics

MAJORITY, TFIDF = "majority class", "TF-IDF + logistic regression"


def evaluate(
    pairs: str,
    schema: LabelSchema,
    split: str,
    students: Mapping[str, str | Sequence[str]],
    teachers: Mapping[str, Sequence[str]],
    runs: Mapping[str, str],
    num_bootstrap: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, int]]:
    """Measure every model on the same judged pairs of `split`.

    Returns (metrics, rows skipped by reason). A pair that any student left out is skipped for all and counted, so that
    no two rows of a table rest on different pairs. Undefined values are None. Raises InputError when nothing is left.
    """
    if taken := {MAJORITY, TFIDF} & students.keys():
        raise ConfigError(f"students: {', '.join(sorted(taken))} is the name of a baseline; choose another")
    judged, num_rows = read_judged(pairs, schema)
    split_N = judged.column("split")
    train, wanted = judged.where(split_N == "train"), judged.where(split_N == split)
    if len(wanted) == 0:
        raise InputError(f"{pairs}: no judged pair in split {split!r}; judged pairs by split: {dict(Counter(split_N))}")
    probs, unscored = {}, {}
    is_common_N = np.ones(len(wanted), dtype=bool)
    for name, uris in students.items():
        probs[name], is_scored_N = read_ensemble(uris, wanted, len(schema.names))
        unscored[name] = int((~is_scored_N).sum())
        is_common_N &= is_scored_N
    if not is_common_N.any():
        raise InputError(f"no pair of split {split!r} was scored by every student; pairs without scores: {unscored}")
    test = wanted.where(is_common_N)
    probs = {**_baselines(train, test, len(schema.names)), **{name: p[is_common_N] for name, p in probs.items()}}
    summaries = {name: summarize(p, test, schema.names, num_bootstrap, seed) for name, p in probs.items()}
    answers = {name: read_answers(uris, judged, schema) for name, uris in teachers.items()}
    votes = {name: perspective_votes(found, split_N == split, len(schema.names)) for name, found in answers.items()}
    votes = {name: by_perspective for name, by_perspective in votes.items() if by_perspective}
    skipped = {
        "not_judged": num_rows - len(judged),
        "other_split": len(judged) - len(wanted),
        "not_scored_by_every_student": len(wanted) - len(test),
    }
    metrics = {
        "label_schema": schema.name,
        "classes": list(schema.names),
        "split": split,
        "num_pairs": len(test),
        "num_queries": len(np.unique(test.query_N)),
        "num_train_pairs": len(train),
        "gold": {name: int((test.gold_N == i).sum()) for i, name in enumerate(schema.names)},
        "baselines": {name: summary for name, summary in summaries.items() if name not in students},
        "students": {name: {**summaries[name], "num_unscored": unscored[name]} for name in students},
        "comparisons": compare(probs, test, num_bootstrap, seed),
        "teachers": {
            name: summarize_teacher(found, judged, schema.names, num_bootstrap, seed) for name, found in answers.items()
        },
        "teacher_comparisons": compare_teachers(votes, judged, len(schema.names), num_bootstrap, seed),
        "rejects_by_stage": {name: _row_counts(uri) for name, uri in runs.items()},
    }
    plain: dict[str, Any] = without_nan(metrics)
    return plain, skipped


def without_nan(value: Any) -> Any:
    """The same tree with None for NaN, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _baselines(train: Judged, test: Judged, num_classes: int) -> dict[str, np.ndarray]:
    """Baselines' probabilities on the test rows; none without judged train pairs to fit them on."""
    if len(train) == 0:
        return {}
    return {
        MAJORITY: majority(train.gold_N, len(test), num_classes),
        TFIDF: tfidf_logistic_regression(train, test, num_classes),
    }


def _row_counts(uri: str) -> dict[str, Any]:
    """Rows in, out, rejected and skipped of a finished run, from its metrics.json."""
    metrics = finished_metrics(uri)
    if metrics is None:
        raise InputError(f"{uri}: holds no finished run; name the output of a job that has ended")
    try:
        return {key: metrics[key] for key in ("job", "rows_in", "rows_out", "rejected", "skipped", "wall_s")}
    except KeyError as error:
        raise InputError(f"{uri}/metrics.json: no {error}; is it a run of a job?") from None
