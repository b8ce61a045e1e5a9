import hashlib
import stat

import pytest

from raylib.errors import ConfigError
from raylib.serving.access import add_key, load_keys, may_enter


def test_a_key_is_stored_as_its_hash_only_and_opens(tmp_path):
    file = tmp_path / "keys.txt"
    keys = [add_key(file, name) for name in ("shop", "batch")]
    assert len(set(keys)) == 2
    assert not any(key in file.read_text() for key in keys)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    digests = load_keys(str(file))
    assert [may_enter(f"Bearer {key}", digests) for key in keys] == [True, True]
    assert not may_enter(f"Bearer {keys[0]}x", digests)
    assert not may_enter(f"Basic {keys[0]}", digests)


def test_comments_and_blank_lines_are_no_keys(tmp_path):
    digest = hashlib.sha256(b"key").hexdigest()
    (tmp_path / "keys.txt").write_text(f"# ours\n\nshop {digest}\n")
    assert load_keys(str(tmp_path / "keys.txt")) == (bytes.fromhex(digest),)


@pytest.mark.parametrize("content", ["", "# nothing\n", "shop secret-in-plain-text\n", "shop\n"])
def test_a_file_that_lets_nobody_in_is_refused_without_showing_it(tmp_path, content):
    (tmp_path / "keys.txt").write_text(content)
    with pytest.raises(ConfigError, match=r"raylib\.serving\.access") as refused:
        load_keys(str(tmp_path / "keys.txt"))
    assert "secret-in-plain-text" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load_keys(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="one word"):
        add_key(tmp_path / "keys.txt", "two words")
