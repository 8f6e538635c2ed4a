import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from fimd.base.errors import InvalidArgumentError
from fimd.base.settings import Settings, read

EXAMPLE = Path(__file__).resolve().parents[2] / "packaging" / "fimd.toml"


def written(directory: Path, text: str) -> Path:
    path = directory / "fimd.toml"
    path.write_text(text)
    return path


def test_each_setting_knows_where_it_comes_from(tmp_path: Path) -> None:
    file = written(tmp_path, 'linger = 3\ncache = 64\nengine = "embedded"\n')
    found = read({"FIMD_CACHE": "32"}, file)
    assert found["linger"] == (3.0, str(file))
    assert found["cache"] == (32, "FIMD_CACHE")
    assert found["engine"] == ("embedded", str(file))
    assert found["log_level"] == ("info", "default")
    assert Settings.load({"FIMD_CACHE": "32"}, file).cache == 32


def test_without_a_file_all_are_defaults(tmp_path: Path) -> None:
    assert Settings.load({}, tmp_path / "none.toml") == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lingr = 3", "there is no setting 'lingr'"),
        ('linger = "soon"', "setting linger can't be 'soon'"),
        ("linger = true", "setting linger can't be True"),
        ("linger = -1", "setting linger can't be -1"),
        ("linger = nan", "setting linger can't be nan"),
        ("cache = 1.5", "setting cache can't be 1.5"),
        ("cache = 0", "setting cache can't be 0"),
        ("cache = inf", "setting cache can't be inf"),
        ("engine = 1", "setting engine can't be 1"),
        ('engine = "turbo"', "setting engine can't be 'turbo'"),
        ("[linger]\nvalue = 1", "setting linger can't be"),
        ("linger = ", "fimd.toml"),
    ],
)
def test_a_wrong_one_is_refused_by_its_name_and_place(
    tmp_path: Path, text: str, words: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidArgumentError, match=re.escape(words)) as refused:
        read({}, file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_variable_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="FIMD_LINGER: setting linger can't be 'x'"):
        read({"FIMD_LINGER": "x"}, tmp_path / "none")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fimd.toml")
    with pytest.raises(InvalidArgumentError, match="no regular file"):
        read({}, tmp_path / "fimd.toml")


def test_the_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    defaults = {item.name: item.default for item in fields(Settings)}
    assert tomllib.loads(text) == defaults
    assert tomllib.loads(EXAMPLE.read_text()) == {}
    for item in fields(Settings):
        assert item.metadata["about"].rstrip(".").split(", in ")[0] in text
        assert all(word in text for word in item.metadata["allowed"])
