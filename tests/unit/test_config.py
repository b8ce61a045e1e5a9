import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import Field, model_validator

from raylib.config import JobConfig, Section, setting_names
from raylib.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


class Sampling(Section):
    temperature: float = Field(0.7, ge=0.0, description="softmax temperature")
    top_k: int = Field(50, description="tokens kept")


class Demo(JobConfig):
    """A job for these tests."""

    output: str = Field(description="run directory")
    samples: int = Field(5, ge=1, description="answers a pair, 100% of them kept")
    mode: Literal["sft", "dpo"] = Field("sft", description="what to make")
    sampling: Sampling = Field(Sampling(), description="how to draw")
    rounds: Sampling | None = Field(None, description="optional section")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.mode == "dpo" and self.samples < 2:
            raise ValueError("mode dpo needs at least 2 samples")
        return self


def parse(*words: str) -> Demo:
    return Demo.from_words(words, "jobs.demo")


def test_defaults_file_and_overrides_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text("output: there\nsamples: 7\nsampling: {temperature: 0.1, top_k: 9}\n")
    config = parse("--config", str(file), "--sampling.temperature", "1.0", "--mode=dpo")
    assert (config.output, config.samples, config.mode) == ("there", 7, "dpo")
    assert (config.sampling.temperature, config.sampling.top_k) == (1.0, 9)
    assert parse("--output", "o", "--rounds.top_k", "3").rounds == Sampling(top_k=3)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text("samplse: 7\nsamples: many\nmode: rlhf\nsampling: {temperature: -1, topk: 9}\n")
    with pytest.raises(ConfigError) as raised:
        parse("--config", str(file), "--sampling.top_k", "2.5", "--verbose")
    message = str(raised.value)
    assert message.startswith(f"{file}: 8 wrong setting(s)")
    for name in (
        "output",
        "samplse",
        "samples",
        "mode",
        "sampling.temperature",
        "sampling.topk",
        "sampling.top_k",
        "verbose",
    ):
        assert f"\n  {name}: " in message
    assert "known settings: mode, output, rounds.temperature" in message
    assert "got 'many'" in message


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("2E3", 2e3), ("1.5e+1", 15.0)])
def test_numbers_with_an_exponent(text: str, number: float, tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(f"output: 1e-4x\nsampling: {{temperature: {text}}}\n")
    assert Demo.from_file(file).sampling.temperature == number
    assert Demo.from_file(file).output == "1e-4x"
    assert parse("--output", "o", "--sampling.temperature", text).sampling.temperature == number


@pytest.mark.parametrize("value", ["'5'", "5.0", "true", "null", "[5]"])
def test_types_are_strict(value: str) -> None:
    with pytest.raises(ConfigError, match="samples"):
        parse("--output", "o", "--samples", value)


def test_impossible_combinations_are_named() -> None:
    with pytest.raises(ConfigError, match="mode dpo needs at least 2 samples"):
        parse("--output", "o", "--mode", "dpo", "--samples", "1")


@pytest.mark.parametrize(
    ("content", "says"),
    [("a: [1", "not valid YAML"), ("- a\n- b\n", "expected a mapping"), ("just text", "expected a mapping")],
)
def test_broken_files(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=says):
        parse("--config", str(file), "--output", "o")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        parse("--config", str(tmp_path / "absent.yaml"))


def test_printed_config_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--output", "o", "--samples", "3", "--print_config")
    assert stopped.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse("--config", str(file)) == parse("--output", "o", "--samples", "3")


def test_help_shows_every_setting_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"--{name} " in text for name in setting_names(Demo))
    assert "answers a pair, 100% of them kept (int, default: 5)" in text
    assert "run directory (str, required)" in text


def test_a_bad_configuration_ends_a_job_at_once_without_heavy_imports(tmp_path: Path) -> None:
    """Exit code 2 in under 5 seconds, every wrong key named, neither Ray nor torch touched."""
    spy = (
        "import runpy, sys\n"
        "sys.argv = ['prepare', '--output', sys.argv[1], '--inptu', 'x', '--dev_share', '2']\n"
        "try: runpy.run_module('jobs.prepare', run_name='__main__')\n"
        "finally: print(sorted({'ray', 'torch', 'vllm', 'transformers'} & set(sys.modules)))\n"
    )
    started_s = time.monotonic()
    command = [sys.executable, "-c", spy, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - started_s < 5
    assert done.returncode == 2
    assert done.stdout.strip() == "[]"
    for name in ("inptu", "dev_share", "input", "label_schema"):
        assert f"\n  {name}: " in done.stderr
    assert not (tmp_path / "out").exists()
