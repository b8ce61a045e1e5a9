"""What a linear probe reads of the teacher's reasoning from the student's latent and from its [CLS] state.

    python -m benchmarks.student_probe --work DIR --seed 1

On the students of `python -m benchmarks.student --work DIR --seeds 1 ...`, which goes first. After arXiv 2601.21611:
the 15 most frequent words of the rationales that stand in neither query nor title; a logistic regression for each
predicts whether it occurs; 10 runs, paired t-test. The paper does not say more; we take the test pairs, which trained
no student, another half of the queries to fit in each run, and words in 5 to 90 % of the rationales, as the others
leave nothing to predict. Published mean F1: 0.403 from the latent, 0.221 from [CLS]. Writes
benchmarks/results/student_probe.{md,json,svg}.
"""

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import ttest_rel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.plot import write_plot
from benchmarks.provenance import describe, provenance, write_result
from benchmarks.student_measure import read_splits
from raylib import tables
from raylib.labels import LabelSchema

RESULT = Path(__file__).parent / "results" / "student_probe"
NUM_WORDS, NUM_RUNS = 15, 10
LEAST, MOST = 0.05, 0.9  # share of the rationales that hold a word
SOURCES = ("latent of LRKD GAT", "[CLS] of LRKD GAT", "[CLS] of BERT")


def words_of(text: str) -> set[str]:
    """The distinct words of a text without case."""
    return set(re.findall(r"\w{2,}", text.casefold()))


def states(model: Path, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Latent and [CLS] state of each pair, [N, R] and [N, D]."""
    import torch

    from raylib.student.data import budget_batches
    from raylib.student.inference import TOKEN_BUDGET, Scorer

    scorer = Scorer(model, device="cpu")
    pairs = scorer.tokenise(rows)
    latents, firsts = [np.zeros(0)] * len(rows), [np.zeros(0)] * len(rows)
    with torch.inference_mode():
        for batch in budget_batches(pairs.lengths_N, TOKEN_BUDGET["cpu"]):
            output = scorer.student(**scorer.tokenizer.collate(pairs, batch))
            for place, latent, first in zip(
                batch, output.latent_BR.numpy(), output.hidden_BLD[:, 0].numpy(), strict=True
            ):
                latents[place], firsts[place] = latent, first
    return np.stack(latents), np.stack(firsts)


def probe(states_ND: np.ndarray, present_NW: np.ndarray, query_N: np.ndarray) -> np.ndarray:
    """F1 of each word in each run, [NUM_RUNS, W]; the same halves of the queries whatever the states."""
    found = np.zeros((NUM_RUNS, present_NW.shape[1]))
    for run in range(NUM_RUNS):
        queries = np.random.default_rng(run).permutation(np.unique(query_N))
        fit_N = np.isin(query_N, queries[: len(queries) // 2])
        for word, present_N in enumerate(present_NW.T):
            if len(np.unique(present_N[fit_N])) < 2:
                continue  # F1 0: nothing could be learnt of it
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            model.fit(states_ND[fit_N], present_N[fit_N])
            found[run, word] = f1_score(present_N[~fit_N], model.predict(states_ND[~fit_N]), zero_division=0.0)
    return found


def main() -> None:
    """Probe and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory of benchmarks.student on the market")
    parser.add_argument("--seed", type=int, default=1, help="of the students")
    words = parser.parse_args()
    _, test = read_splits(words.work / "prepare", LabelSchema.load("marketplace6"))
    table = tables.read_table(str(words.work / "annotate"), tables.RATIONALES, ["pair_id", "perspective", "rationale"])
    said = {row["pair_id"]: row["rationale"] for row in table.to_pylist() if row["perspective"] == "unified"}
    is_said_N = np.array([pair_id in said for pair_id in test.column("pair_id")])
    test = test.where(is_said_N)
    rows = test.table.to_pylist()
    new = [words_of(said[row["pair_id"]]) - words_of(f"{row['query']} {row['title']}") for row in rows]
    counts = Counter(word for found in new for word in found)
    frequent = [word for word, count in counts.most_common() if LEAST <= count / len(rows) <= MOST][:NUM_WORDS]
    present_NW = np.array([[word in found for word in frequent] for found in new])
    latent_NR, first_ND = states(words.work / f"lrkd_gat-{words.seed}" / "model", rows)
    _, bert_ND = states(words.work / f"bert-{words.seed}" / "model", rows)
    f1 = {
        name: probe(states_ND, present_NW, test.query_N)
        for name, states_ND in zip(SOURCES, (latent_NR, first_ND, bert_ND), strict=True)
    }
    means = {name: found.mean(1) for name, found in f1.items()}
    tests = {name: ttest_rel(means[SOURCES[0]], means[name]) for name in SOURCES[1:]}
    record = {
        **provenance(f"python -m benchmarks.student_probe --work DIR --seed {words.seed}"),
        "num_pairs": len(rows),
        "words": {word: counts[word] / len(rows) for word in frequent},
        "f1_by_run_and_word": {name: found.tolist() for name, found in f1.items()},
        "mean_f1": {name: float(found.mean()) for name, found in means.items()},
        "t_test_against_latent": {
            name: {"t": float(found.statistic), "p": float(found.pvalue)} for name, found in tests.items()
        },
    }
    write_plot(RESULT, lambda axes: draw(axes, record), 8.0, 3.4)
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# What the latent holds of the teacher's reasoning",
        "",
        describe(record, "torch", "transformers", "scikit-learn"),
        f"{record['num_pairs']} test pairs, {NUM_RUNS} runs, {len(record['words'])} words: "
        f"{', '.join(record['words'])}. Published: 0.403 from the latent, 0.221 from [CLS].",
        "",
        "| read from | mean F1 | runs | paired t-test, latent minus this |",
        "|---|---:|---|---|",
    ]
    for name in SOURCES:
        runs = np.mean(record["f1_by_run_and_word"][name], axis=1)
        found = record["t_test_against_latent"].get(name)
        tested = f"t {found['t']:.2f}, p {found['p']:.2g}" if found else ""
        mean, low, high = record["mean_f1"][name], runs.min(), runs.max()
        lines.append(f"| {name} | {mean:.3f} | {low:.3f} to {high:.3f} | {tested} |")
    return "\n".join([*lines, "", "![F1 by word](student_probe.svg)"]) + "\n"


def draw(axes: Axes, record: dict[str, Any]) -> None:
    """F1 by word, mean and range over runs."""
    for number, name in enumerate(SOURCES):
        found = np.array(record["f1_by_run_and_word"][name])
        spread = [found.mean(0) - found.min(0), found.max(0) - found.mean(0)]
        positions = np.arange(found.shape[1]) + 0.27 * (number - 1)
        axes.bar(positions, found.mean(0), 0.25, yerr=spread, label=name, error_kw={"linewidth": 0.6})
    axes.set_xticks(range(len(record["words"])), list(record["words"]), rotation=45, ha="right")
    axes.set_ylabel("F1, mean and range of runs")
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
