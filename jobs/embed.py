"""Rationales -> rationale embeddings, what the student's latent learns from.

    python -m jobs.embed --rationales runs/unified --encoder minilm --output runs/embed

One output file for each input file, several of which are embedded together, so that texts of like length share a
batch however small the files are; a rerun of an interrupted job does only the files that are missing.
"""

import math
import time
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylib import tables
from raylib.config import JobConfig, main
from raylib.errors import InputError
from raylib.models import resolve_model
from raylib.ray_session import ray_session
from raylib.runs import Run, require_done

ROWS_PER_CALL = 4096  # rationales embedded together, about: enough to sort by length, soon enough on the disk


class EmbedConfig(JobConfig):
    """Embed the rationales of one perspective with a frozen sentence encoder."""

    output: str = Field(description="run directory to write")
    rationales: str = Field(description="run directory of annotate, made with the unified prompt, greedy")
    perspective: str | Annotated[tuple[str, ...], Field(strict=False)] = Field(
        "unified",
        description="which rationales to embed; published: those of the unified prompt; several: a pair's as one text",
    )
    encoder: str = Field("minilm", description="minilm, a directory or a Hugging Face id; published: BAAI/bge-m3")
    normalise: bool = Field(True, description="scale vectors to length 1; published: yes (BGE-M3 dense)")
    max_tokens: int = Field(
        1024, ge=8, description="tokens of a rationale, the rest is cut; capped by the encoder's own"
    )
    batch_size: int = Field(64, ge=1, description="rationales the encoder takes at once")
    num_actors: int = Field(1, ge=1, description="encoder processes; files are spread over them")
    cpus_per_actor: int = Field(1, ge=1, description="cores (and threads) of one process")
    gpus_per_actor: float = Field(0.0, ge=0.0, description="GPUs of one process; may be a fraction")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of the encoder's weights")

    @property
    def perspectives(self) -> tuple[str, ...]:
        """Whose rationales make a text."""
        return (self.perspective,) if isinstance(self.perspective, str) else self.perspective

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if not self.perspectives or len(set(self.perspectives)) != len(self.perspectives):
            raise ValueError(f"perspective: {list(self.perspectives)}: name at least one, each once")
        return self


def run(config: EmbedConfig) -> dict[str, Any]:
    """Embed, count, return the metrics."""
    run = Run(config.output, "embed", config)
    if run.is_done:
        return run.metrics()
    require_done(config.rationales)
    encoder = resolve_model(config.encoder)
    files = tables.list_parquet(config.rationales)
    for perspective in config.perspectives:
        check_perspective(config.rationales, perspective)

    import ray
    from ray.data import ActorPoolStrategy

    from raylib.embedding.encoder import EmbedFiles, model_revision
    from raylib.embedding.selection import REASONS

    revision = model_revision(encoder)
    run.write_provenance({"rationales": config.rationales}, encoder=encoder, encoder_revision=revision)
    rows_of_first = tables.open_parquet(files[0]).metadata.num_rows
    wanted = min(ROWS_PER_CALL // max(rows_of_first, 1), len(files) // config.num_actors)
    files_per_call = max(1, wanted)
    started_s = time.time()
    with ray_session():
        work = [{"source": file, "target": f"{run.uri}/embeddings-{PurePosixPath(file).name}"} for file in files]
        counted = (
            ray.data.from_items(work, override_num_blocks=math.ceil(len(work) / files_per_call))
            .map_batches(
                EmbedFiles,
                batch_size=files_per_call,
                compute=ActorPoolStrategy(size=min(config.num_actors, len(files))),
                num_cpus=config.cpus_per_actor,
                num_gpus=config.gpus_per_actor,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(config.cpus_per_actor)}},
                fn_constructor_kwargs={
                    "perspectives": config.perspectives,
                    "path": encoder,
                    "max_tokens": config.max_tokens,
                    "is_normalised": config.normalise,
                    "batch_size": config.batch_size,
                    "dtype": config.dtype,
                },
            )
            .take_all()
        )
    embed_s = time.time() - started_s
    total = {name: sum(int(row[name]) for row in counted) for name in counted[0]}
    return run.finish(
        total["rows_in"],
        total["rows_out"],
        {},
        {name: total[name] for name in REASONS},
        encoder_revision=revision,
        dimensions=max(int(row["dimensions"]) for row in counted),
        is_normalised=config.normalise,
        max_tokens=max(int(row["max_tokens"]) for row in counted),
        num_cut=total["num_cut"],
        embed_s=round(embed_s, 3),
        rationales_per_s=round(total["num_new"] / embed_s, 1),
    )


def check_perspective(uri: str, perspective: str) -> None:
    """Raise InputError when the table has no rationale without error of `perspective`."""
    found: set[str] = set()
    for batch in tables.read_batches(uri, tables.RATIONALES, ["perspective", "error"]):
        usable = batch.filter(batch["error"].is_null())
        found.update(usable["perspective"].unique().to_pylist())
        if perspective in found:
            return
    raise InputError(
        f"{uri}: no rationale of perspective {perspective!r} without error; perspectives with some: "
        f"{', '.join(sorted(found)) or 'none'}"
    )


if __name__ == "__main__":
    main(EmbedConfig, run, "jobs.embed")
