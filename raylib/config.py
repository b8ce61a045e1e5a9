"""Job configuration: one frozen, strict pydantic model a job, filled from a YAML file and dotted overrides.

jsonargparse was tried against the same models first: it stops at the first wrong value and accepts `"7"` for an int
on the command line and in YAML alike. Here argparse only reads words, YAML gives every word its type, and pydantic
validates the merged tree once, so that all mistakes are reported together.
"""

import argparse
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from raylib.errors import ConfigError, TricotError


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does and everybody expects; PyYAML wants 1.0e-4."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Section(BaseModel):
    """A nested group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class JobConfig(Section):
    """Base of every job's configuration; the class docstring is the job's `--help` text."""

    # Settings (or sections) that shape no row: an unfinished run may go on with other values of them.
    adjustable: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_mapping(cls, values: Any, where: str) -> Self:
        """Validate a tree of plain values; raises ConfigError that lists every wrong key with its value."""
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: expected a mapping of settings, got {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            known = sorted(setting_names(cls))
            lines = [_describe(detail, known) for detail in error.errors()]
            raise ConfigError(f"{where}: {len(lines)} wrong setting(s)\n" + "\n".join(lines)) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Load one YAML file."""
        return cls.from_mapping(read_yaml(path), str(path))

    @classmethod
    def from_words(cls, words: Sequence[str], prog: str) -> Self:
        """Parse a command line: `--config FILE`, `--section.key value`, `--print_config`, `--help`.

        Raises ConfigError on any mistake; exits with 0 after `--help` and `--print_config`.
        """
        parser = _parser(cls, prog)
        parsed, unknown = parser.parse_known_args(words)
        overrides = {name: value for name, value in vars(parsed).items() if name not in ("config", "print_config")}
        values = read_yaml(parsed.config) if parsed.config else {}
        if not isinstance(values, dict):
            raise ConfigError(f"{parsed.config}: expected a mapping of settings, got {type(values).__name__}")
        for name, text in overrides.items():
            _set_dotted(values, name, _typed(name, text))
        for word in unknown:
            if word.startswith("--"):
                _set_dotted(values, word[2:].split("=")[0], "(unknown option)")
        config = cls.from_mapping(values, parsed.config or "command line")
        if parsed.print_config:
            sys.stdout.write(config.to_yaml())
            raise SystemExit(0)
        return config

    def to_yaml(self) -> str:
        """The resolved configuration, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file; an empty file is an empty mapping. Raises ConfigError with the line of a syntax error."""
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    return {} if content is None else content


def setting_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings, e.g. `sampling.temperature`."""
    names = []
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        names += setting_names(section, f"{prefix}{name}.") if section else [prefix + name]
    return names


def main(config_class: type[JobConfig], run: Callable[[Any], Any], prog: str) -> None:
    """Entry point of a job: parse, run, exit 0; a TricotError is printed as text and sets the exit code."""
    try:
        run(config_class.from_words(sys.argv[1:], prog))
    except TricotError as error:
        print(f"{prog}: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _section(annotation: Any) -> type[Section] | None:
    """The Section class of a field that is one, or optionally one."""
    options = typing.get_args(annotation) or (annotation,)
    sections = [option for option in options if isinstance(option, type) and issubclass(option, Section)]
    return sections[0] if len(sections) == 1 else None


def _parser(model: type[JobConfig], prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}",
        description=model.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=None, metavar="FILE", help="YAML file with the settings below")
    parser.add_argument("--print_config", action="store_true", default=False, help="print the resolved settings, exit")
    _add_arguments(parser, model, "")
    return parser


def _add_arguments(parser: argparse.ArgumentParser, model: type[BaseModel], prefix: str) -> None:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section:
            _add_arguments(parser, section, f"{prefix}{name}.")
            continue
        kind = getattr(field.annotation, "__name__", "") if not typing.get_args(field.annotation) else ""
        kind = kind or str(field.annotation).replace("typing.", "")
        default = "required" if field.is_required() else f"default: {field.get_default(call_default_factory=True)!r}"
        help_text = f"{field.description or ''} ({kind}, {default})".replace("%", "%%")
        parser.add_argument(f"--{prefix}{name}", metavar="VALUE", help=help_text)


def _typed(name: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ConfigError(f"--{name}: {text!r} is not a YAML value") from None


def _set_dotted(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}
        values = values[section]
    values[last] = value


def _describe(detail: Any, known: list[str]) -> str:
    name = ".".join(str(part) for part in detail["loc"]) or "(the whole configuration)"
    if detail["type"] == "extra_forbidden":
        return f"  {name}: unknown setting; known settings: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"  {name}: required, but not given"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error" and not detail["loc"]:
        return f"  {name}: {message}"
    return f"  {name}: {message}; got {detail['input']!r}"
