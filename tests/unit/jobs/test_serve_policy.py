"""What jobs.serve says of files of rules and keys that it cannot take."""

import pytest

from jobs.serve import ServeConfig, read_policy
from raylib.errors import ConfigError


def test_names_the_mistakes_of_both_files(tmp_path):
    keys, rules = tmp_path / "keys.txt", tmp_path / "rules.yaml"
    keys.write_text("somebody not-a-hash\n")
    rules.write_text("- {name: gone, then: {shift: 1}}\n")
    config = ServeConfig(output="run", model="student", rules=str(rules), keys_file=str(keys))
    with pytest.raises(ConfigError) as error:
        read_policy(config, "own")
    assert str(rules) in str(error.value)
    assert str(keys) in str(error.value)
    assert "not-a-hash" not in str(error.value)


def test_own_key_is_only_there_beside_others(tmp_path):
    assert read_policy(ServeConfig(output="run", model="student"), "own").key_digests == ()
    keys = tmp_path / "keys.txt"
    keys.write_text(f"somebody {'0' * 64}\n")
    config = ServeConfig(output="run", model="student", keys_file=str(keys))
    assert len(read_policy(config, "own").key_digests) == 2
