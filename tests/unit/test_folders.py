from pathlib import Path

import pytest

from raylib.folders import whole_folder


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "model"
    with whole_folder(target) as partial:
        (partial / "weights").write_text("1")
        assert not target.exists()
    assert (target / "weights").read_text() == "1"
    with whole_folder(target) as partial:
        (partial / "other").write_text("2")
    assert [file.name for file in target.iterdir()] == ["other"]


def test_after_an_error_the_older_one_is_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with whole_folder(target) as partial:
        (partial / "weights").write_text("good")

    def save_half() -> None:
        with whole_folder(target) as partial:
            (partial / "weights").write_text("half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_half()
    assert (target / "weights").read_text() == "good"
