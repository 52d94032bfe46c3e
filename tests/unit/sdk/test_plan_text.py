"""Texts that are no plan: each is refused with its place and with what to do, in YAML and JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from stretto_core.errors import InvalidArgument
from stretto_sdk.plan_files.json_text import read_json
from stretto_sdk.plan_files.mistakes import PlanMistake, PlanRefused
from stretto_sdk.plan_files.places import Place
from stretto_sdk.plan_files.read import read_plan_file, read_plan_text
from stretto_sdk.plan_files.text import PLAN_BYTES_MAX
from stretto_sdk.plan_files.yaml_text import read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)


def mistakes_of(text: bytes | str, path: Path) -> list[PlanMistake]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with pytest.raises(PlanRefused) as refused:
        read_plan_file(path)
    return list(refused.value.mistakes)


YAML_REFUSALS = {
    "a tab that indents": ("tasks:\n\t- name: a\n", 2, 1, "a tab cannot indent; use spaces"),
    "an open bracket": ("input: [1, 2", 1, 8, "bracket is not closed"),
    "an open bracket at the very end": ("tasks: [", 1, 9, "it ends too early"),
    "an open quote": ("name: 'x\ninput: 3\n", 1, 7, "quote or a bracket is not closed"),
    "a colon in a text": ("name: b: c", 1, 8, "needs quotes"),
    "a crooked indent": ("tasks:\n  - name: a\n executor: x", 3, 2, "indented like the ones"),
    "a sign that needs quotes": ("name: @x", 1, 7, 'starts with "@" needs quotes'),
    "two documents": ("name: a\n---\nname: b\n", 2, 1, "a plan file holds one"),
    "an alias in itself": ("input: &x [*x]", 1, 12, "has no end"),
    "an unknown alias": ("input: *y", 1, 8, "no anchor is named 'y'"),
    "a tag of Python": ("name: !!python/object:os.system x", 1, 7, "!!python/object:os.system"),
    "a tag of one's own": ("input: !secret x", 1, 8, "the tag !secret is not taken"),
    "a key that is a list": ("? [a]\n: b", 1, 3, "a key must be text"),
    "a merge key": ("labels: {<<: {a: b}}", 1, 10, "merge keys (<<) are not YAML 1.2"),
    "no number": ("input: .nan", 1, 8, ".nan is no JSON number"),
    "infinity": ("input: -.inf", 1, 8, "-.inf is no JSON number"),
    "a number too large": ("input: 1e999", 1, 8, "the number 1e999 is too large"),
    "very many digits": ("input: " + "1" * 5_000, 1, 8, "5000 digits"),
    "a key twice": (
        "name: a\nname: b",
        2,
        1,
        'the key "name" stands twice in one object',
    ),
    "nothing": ("", 1, 1, "is empty"),
    "a comment only": ("# later\n", 1, 1, "is empty"),
    "a control character": ("name: 'x'\nlabels: \x01", 2, 9, "U+0001"),
    "half a surrogate pair": ('name: "\\ud800"', 1, 10, "Unicode"),
    "too deep": ("input: " + "[" * 200, 1, 107, "nested more than 100 deep"),
    "a bomb": (BOMB, 8, 11, "aliases unfold to more than 64 MiB"),
    "no UTF-8": (b"name: a\nlabels: \xff", 2, 9, "0xff"),
    "UTF-16": ("\ufeffname: a".encode("utf-16-le"), 1, 1, "it looks like UTF-16"),
}
JSON_REFUSALS = {
    "a key twice": ('{"name": "a",\n "name": "b"}', 2, 2, 'the key "name" stands twice'),
    "no number": ('{"input": NaN}', 1, 11, "NaN is no JSON number"),
    "infinity": ('{"input": [-Infinity]}', 1, 12, "-Infinity is no JSON number"),
    "a number too large": ('{"input": 1e999}', 1, 11, "the number 1e999 is too large"),
    "very many digits": ('{"input": ' + "1" * 5_000 + "}", 1, 11, "5000 digits"),
    "half a surrogate pair": ('{"input":\n["\\ud800"]}', 2, 2, "half of a surrogate pair"),
    "too deep": ('{"input": ' + "[" * 5_000, 1, 110, "nested more than 100 deep"),
    "deep and closed": ('{"input": ' + "[" * 150 + "]" * 150 + "}", 1, 110, "more than 100 deep"),
    "an open brace": ("{", 1, 2, "it ends too early"),
    "nothing": ("  ", 1, 3, "it is empty"),
    "single quotes": ("{'name': 1}", 1, 2, "double quotes"),
    "a comma too many": ('{"name": "a",}', 1, 13, "a comma too many"),
    "a comma too many, lines before the end": ('{"input": [1,\n\n ]}', 1, 13, "a comma too many"),
    "something behind it": ('{"name": "a"}\n x', 2, 2, "something stands after its end"),
    "no UTF-8": (b'{"name": "\xff"}', 1, 11, "is not UTF-8"),
    "a list": ("[]", 1, 1, "must be an object, not a list"),
}
CASES = [
    pytest.param(f"plan.{kind}", *case, id=f"{kind}: {name}")
    for kind, cases in (("yaml", YAML_REFUSALS), ("json", JSON_REFUSALS))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("name", "text", "line", "column", "says"), CASES)
def test_a_text_that_is_no_plan_is_refused_where_it_is_wrong(
    name: str, text: bytes | str, line: int, column: int, says: str, tmp_path: Path
) -> None:
    found = mistakes_of(text, tmp_path / name)
    at = [each for each in found if (each.line, each.column) == (line, column)]
    assert any(says in each.description for each in at), found
    assert found == sorted(found)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "plan.yaml"
    with large.open("wb") as file:
        file.truncate(200 << 20)  # Without a byte on the disk: reading it would take long.
    with pytest.raises(PlanRefused, match="209715200 bytes; a plan file has at most 67108864"):
        read_plan_file(large)
    with pytest.raises(PlanRefused, match="at most"):
        read_plan_text(b" " * (PLAN_BYTES_MAX + 1), source="standard input")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"absent\.yaml: No such file"):
        read_plan_file(tmp_path / "absent.yaml")
    with pytest.raises(InvalidArgument, match="directory"):
        read_plan_file(tmp_path)
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(PlanRefused, match="at most"):
        read_plan_file(tmp_path / "zero.yaml")


WORDS = {
    "null": None,
    "~": None,
    "": None,
    "true": True,
    "False": False,
    "no": "no",
    "yes": "yes",
    "on": "on",
    "off": "off",
    "y": "y",
    "1": 1,
    "-7": -7,
    "+3": 3,
    "010": 10,
    "0o17": 15,
    "0x1f": 31,
    "1_000": "1_000",
    "12:30:00": "12:30:00",
    "2026-01-02": "2026-01-02",
    "1.5": 1.5,
    ".5": 0.5,
    "1.": 1.0,
    "1e3": 1000.0,
    "1.2.3": "1.2.3",
    "'5'": "5",
    '"true"': "true",
    "!!str 5": "5",
    "0b11": "0b11",
}


@pytest.mark.parametrize("word", WORDS)
def test_plain_words_mean_what_yaml_1_2_says(word: str) -> None:
    read = read_yaml(f"x: {word}\n")
    assert read.value == {"x": WORDS[word]}
    assert not read.mistakes


def test_keys_are_always_text() -> None:
    assert read_yaml("on: 1\n5: 2\ntrue: 3\nnull: 4\n").value == {
        "on": 1,
        "5": 2,
        "true": 3,
        "null": 4,
    }


def test_aliases_are_followed_and_keep_both_places() -> None:
    read = read_yaml("a: &it {x: 1}\nb: *it\n")
    assert read.value == {"a": {"x": 1}, "b": {"x": 1}}
    assert read.spot().find("b") == Place(2, 4)
    assert read.spot().find("b.x") == Place(1, 12)


@pytest.mark.parametrize(
    ("path", "of_key", "place"),
    [
        ("", False, Place(1, 1)),
        ("name", False, Place(1, 10)),
        ("name", True, Place(1, 2)),
        ("tasks[1].inputs['x.y']", False, Place(4, 22)),
        ('tasks[1].inputs["x.y"].from', False, Place(4, 22)),
        ("tasks[0].after", False, Place(3, 2)),
        ("tasks[7].name", False, Place(2, 11)),
    ],
)
def test_a_path_leads_to_its_place_or_to_where_it_would_be(
    path: str, of_key: bool, place: Place
) -> None:
    text = '{"name": "ä",\n "tasks": [\n {"name": "a"},\n {"inputs":  {"x.y": 5}}]}'
    assert read_json(text).spot().find(path, of_key=of_key) == place


@pytest.mark.parametrize("seed", range(40))
def test_json_and_yaml_give_the_same_value_and_places(seed: int) -> None:
    draws = random.Random(seed)

    def value(depth: int) -> object:
        kind = draws.randrange(8 if depth else 6)
        match kind:
            case 0:
                return draws.choice([True, False, None])
            case 1:
                return draws.randrange(-(10**6), 10**6)
            case 2:
                return draws.uniform(-10, 10)
            case 3 | 4 | 5:
                return "".join(draws.choices('ab"\\ :#\n{é漢', k=draws.randrange(8)))
            case 6:
                return [value(depth - 1) for _ in range(draws.randrange(4))]
            case _:
                return {f"k {n}{draws.random()}": value(depth - 1) for n in range(4)}

    wanted = {"top": value(4), "list": [value(3), value(3)]}
    text = json.dumps(wanted, indent=draws.choice([None, 1, 2]), ensure_ascii=False)
    by_json, by_yaml = read_json(text), read_yaml(text)
    assert by_json.value == by_yaml.value == wanted
    assert by_json.spot() == by_yaml.spot()
