"""Task lists as text, in files and in variables."""

import json
import pathlib

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import CellSyntaxError, InputError, NbimgError, UnknownNameError
from nbimg.text.tasklist import parse_tasks, read_tasks, tasks_of
from nbimg.text.tasks import requests_of
from nbimg.types import Request
from tests.text.test_tasks import REQUESTS

TWO = [{"prompt": "a red car", "seed": 1}, {"prompt": "a dog", "output_filename": "dog.jpg"}]
SNIPPETS = st.lists(
    st.sampled_from([
        '{"prompt": "a"}', '"a"', "- a", "- prompt: a", "  seed: 1", "tasks:", "[", "]", "{", "}",
        ",", ":", "\n", " ", "---", "&a", "*a", "<<: *a", "!!int x", "!x", "2024-01-01", "'", '"',
        "#", "|", "? ", "\t", "null", "\x00", "\u2028", "\r", "\ufeff", "%YAML 1.1", "!!bool x",
        "!!timestamp x", "!!float ''", "!!int ''", "!!binary x", "!!set {a}", "1" * 5000,
    ])
).map("".join)  # fmt: skip


def fail(text):
    with pytest.raises(CellSyntaxError) as caught:
        parse_tasks(text)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO),
        json.dumps(TWO, indent=2),
        json.dumps({"tasks": TWO}),
        "\n\n" + "\n\n".join(map(json.dumps, TWO)) + "\n",
        yaml.safe_dump(TWO),
        yaml.safe_dump({"tasks": TWO}),
        "---\n- prompt: a red car\n  seed: 1\n- {prompt: a dog, output_filename: dog.jpg}\n",
        "prompt: a red car\nseed: 1\n---\nprompt: a dog\noutput_filename: dog.jpg\n",
        "[{'prompt': 'a red car', 'seed': 1}, {'prompt': 'a dog', 'output_filename': 'dog.jpg'},]",
        "\ufeff" + json.dumps(TWO, indent=1).replace("\n", "\r\n"),
    ],
)
def test_every_way_to_write_a_list_gives_the_same_tasks(text):
    assert parse_tasks(text) == TWO


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('"a"\n"b"', ["a", "b"]),
        ("- a\n- b", ["a", "b"]),
        ("tasks:\n- a\n- prompt: b", ["a", "b"]),
        ('{"prompt": "a"}', ["a"]),
        ("prompt: a", ["a"]),
        ("- prompt: |\n    a\n    b\n", ["a\nb\n"]),
    ],
)
def test_texts_and_single_tasks_are_lists_too(text, prompts):
    assert [task["prompt"] for task in parse_tasks(text)] == prompts


@pytest.mark.parametrize(
    "typed", ["2024-01-01", "yes", "true", "42", "007", "1.50", "0x1F", "1_000", "12:30:45", "="]
)
def test_a_prompt_in_yaml_is_the_text_as_typed(typed):
    text = f"- {typed}\n- prompt: {typed}\n  style: {typed}\n  n: 2"
    first, second = parse_tasks(text)
    assert first == {"prompt": typed}
    assert second == {"prompt": typed, "style": typed, "n": 2}


def test_other_scalars_of_yaml_are_what_json_knows_and_no_more():
    (task,) = parse_tasks(
        "- prompt: a\n  ar: 16:9\n  seed: 3\n  mask:\n  params:\n"
        "    {a: true, b: no, c: 1.5, d: 2024-01-01, e: '3', f: 010, g: null, prompt: 7}\n"
    )
    assert (task["ar"], task["seed"], task["mask"]) == ("16:9", 3, None)
    assert task["params"] == {
        "a": True, "b": "no", "c": 1.5, "d": "2024-01-01", "e": "3", "f": "010", "g": None, "prompt": 7,
    }  # fmt: skip


def test_yaml_tasks_can_share_what_they_have_in_common():
    first, second = parse_tasks("- &a\n  prompt: a\n  steps: 4\n- <<: *a\n  prompt: b\n")
    assert (first, second) == ({"prompt": "a", "steps": 4}, {"prompt": "b", "steps": 4})


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ('[\n {"prompt": "a" "seed": 1}\n]', 2, 17, "JSON"),
        ('[{"prompt": "a"}', 1, 17, "JSON"),
        ('{"prompt": "a"}\n{"prompt": "b}\n{"prompt": "c"}', 2, 12, "JSON"),
        ('{"prompt": "a"}\n{"prompt": "b"} x', 2, 17, "JSON"),
        ("- prompt: a\n  seed: [1\n", 3, 1, "YAML"),
        ("- prompt: a: b\n", 1, 12, "YAML"),
        ("[{prompt: a, seed: 1}, {prompt: b]", 1, 34, "YAML"),
        ("- prompt: a\n  seed: 1\n  seed: 2\n", 3, 3, "'seed' stands twice"),
        ('[{"seed": 1},\n {"prompt": "a", "seed": 1, "seed": 2}]', 2, 29, "'seed' stands twice"),
        ('{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}', 2, 17, "'prompt' stands twice"),
        ("- a\n- &x [*x]\n", 2, 3, "contains itself"),
        ("a red car", 1, 1, "no list of tasks"),
        ("42", 1, 1, "no list of tasks"),
        ("", 1, 1, "no tasks"),
        (" \n# nothing\n", 1, 1, "no tasks"),
        ("[]", 1, 1, "no tasks"),
        ("tasks:\n", 1, 1, "no tasks"),
        ('{"tasks": []}', 1, 1, "no tasks"),
        ('{"tasks": {"prompt": "a"}, "model": "x"}', 1, 1, "'model' stands beside tasks"),
        ("[" * 100_000, 1, 1, "nested too deeply"),
        ("- \x00", 1, 3, "YAML"),
        ("- !python/object:os.x {}", 1, 3, "YAML"),
    ],
)  # fmt: skip
def test_a_broken_list_says_where_and_what_it_most_looks_like(text, line, column, says):
    error = fail(text)
    assert (error.line, error.column) == (line, column)
    assert says in str(error)


def test_a_yaml_text_that_would_grow_without_bound_is_refused():
    layers = ["- params:", "   a0: &a0 [x]"]
    layers += [f"   a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "grows" in str(fail("\n".join(layers)))


def test_an_item_that_is_no_task_is_named_by_its_number():
    with pytest.raises(InputError, match="task 2: 42 is neither"):
        parse_tasks('["a", 42]')


@given(st.lists(REQUESTS, min_size=1, max_size=3))
def test_json_lines_and_yaml_of_the_same_tasks_give_the_same_requests(requests):
    tasks = json.loads(json.dumps([request.to_dict() for request in requests]))
    for text in (
        json.dumps(tasks),
        json.dumps({"tasks": tasks}, indent=1, ensure_ascii=False),
        "\n".join(map(json.dumps, tasks)),
        yaml.safe_dump(tasks),
        yaml.safe_dump({"tasks": tasks}, default_flow_style=True),
    ):
        assert requests_of(parse_tasks(text), {}) == requests


@given(st.text() | SNIPPETS)
def test_any_text_is_tasks_or_refused_with_a_place_inside_it(text):
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        for request in requests_of(parse_tasks(text), {}):
            assert request.key
    except CellSyntaxError as error:
        assert 1 <= error.line <= len(lines)  # noqa: PT017
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1  # noqa: PT017
    except NbimgError as error:
        assert "\n" not in str(error)  # noqa: PT017


class Frame:
    """What polars gives: rows as dicts, and a to_dicts of its own."""

    columns = ("prompt", "seed")

    def __iter__(self):
        raise AssertionError("columns are no tasks")

    def iter_rows(self, *, named=False):
        assert named
        return iter([{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": None}])


@pytest.mark.parametrize(
    "value",
    [
        ["a", "b"],
        ("a", Request("b")),
        (prompt for prompt in "ab"),
        {"tasks": [{"prompt": "a"}, "b"]},
        pd.Series(["a", "b"]),
        pd.DataFrame({"prompt": ["a", "b"], "seed": [None, None], "Unnamed: 0": [0, 1]}),
        '["a", "b"]',
        "- a\n- b",
    ],
)
def test_a_variable_holds_tasks_in_any_shape(value):
    tasks = read_tasks("mine", {"mine": value})
    assert [request.prompt for request in requests_of(tasks, {})] == ["a", "b"]


def test_a_table_has_a_task_in_each_row_and_its_empty_cells_are_not_given():
    frame = pd.DataFrame({"prompt": ["a", "b"], "seed": [1, None], "negative": ["", "x"]})
    for table, seeds in ((frame, [1, None]), (Frame(), [1, None])):
        requests = requests_of(tasks_of(table), {"negative": "people"})
        assert [request.seed for request in requests] == seeds
        assert requests[0].negative == "people"


def test_a_table_with_a_column_twice_is_refused():
    table = pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"])
    with pytest.raises(InputError, match="'prompt' stands twice"):
        tasks_of(table)


@pytest.mark.parametrize("value", [None, 7, b"x", object()])
def test_a_variable_that_holds_no_tasks_is_refused(value):
    with pytest.raises(InputError, match="mine holds no tasks"):
        read_tasks("mine", {"mine": value})


@pytest.mark.parametrize("empty", [[], (), {"tasks": []}, pd.DataFrame({"prompt": []}), ""])
def test_an_empty_variable_is_refused(empty):
    with pytest.raises(InputError, match="no tasks"):
        read_tasks("mine", {"mine": empty})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "prompt,seed,output_filename\na red car,1,\na dog,,dog.jpg\n"),
        ("t.csv", "prompt;seed;output_filename\r\na red car;1;\r\na dog;;dog.jpg\r\n"),
        ("t.csv", 'prompt, seed, output_filename\n\na red car, 1,\n"a dog", , dog.jpg\n'),
        ("t.csv", ",prompt,seed,output_filename\n0,a red car,1,\n1,a dog,,dog.jpg\n"),
        ("t.tsv", "prompt\tseed\toutput_filename\na red car\t1\t\na dog\t\tdog.jpg\n"),
        ("t.json", json.dumps(TWO)),
        ("t.jsonl", "\n".join(map(json.dumps, TWO))),
        ("t.yaml", yaml.safe_dump(TWO)),
        ("T.YML", yaml.safe_dump({"tasks": TWO})),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_holds_tasks(name, text, mark, tmp_path):
    (tmp_path / name).write_bytes((mark + text).encode())
    for source in (name, str(tmp_path / name)):
        first, second = requests_of(read_tasks(source, {}), {})
        assert first == Request("a red car", seed=1)
        assert second == Request("a dog", output="dog.jpg")


def test_a_cell_of_a_table_keeps_its_commas_quotes_and_lines(tmp_path):
    prompts = ['a "red", big car', "two\nlines", "007", "ünï"]
    pd.DataFrame({"prompt": prompts}).to_csv(tmp_path / "t.csv")
    assert [task["prompt"] for task in read_tasks("t.csv", {})] == prompts


def test_a_path_in_a_variable_is_read(tmp_path):
    (tmp_path / "t.json").write_text('["a"]')
    assert read_tasks("mine", {"mine": pathlib.Path("t.json")}) == [{"prompt": "a"}]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.json", b'[{"prompt": }]', "t.json, line 1, column 13: this is not JSON"),
        ("t.jsonl", b'{"prompt": "a"}\n{"prompt" "b"}', "t.jsonl, line 2, column 11: this is not"),
        ("t.yaml", b"- a: b: c", "t.yaml, line 1, column 7: this is not YAML"),
        ("t.csv", b"prompt,seed\na,1\na red car, at night,1\n", "t.csv, line 3: 3 cells, but"),
        ("t.csv", b"prompt,prompt\na,b\n", "t.csv: 'prompt' stands twice"),
        ("t.csv", b"prompt,seed\n", "t.csv holds no tasks"),
        ("t.csv", b"", "t.csv holds no tasks"),
        ("t.csv", b'prompt\n"' + b"x" * 200_000 + b'"\n', "t.csv, line 2: field larger"),
        ("t.json", b"\xff\xfe[\x00", "t.json is not UTF-8"),
    ],
)
def test_a_broken_file_says_its_name_and_where(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_tasks(name, {})
    assert str(caught.value).startswith(message)


def test_an_unknown_name_has_the_near_files_and_variables(tmp_path):
    (tmp_path / "tasks.csv").write_text("prompt\na\n")
    for source, near in (("task.csv", "tasks.csv"), ("frme", "frame"), ("./task.csv", "tasks.csv")):
        with pytest.raises(UnknownNameError) as caught:
            read_tasks(source, {"frame": 1, "_hidden": 2})
        assert near in caught.value.closest[0]


def test_a_folder_is_no_file_of_tasks(tmp_path):
    (tmp_path / "t.json").mkdir()
    with pytest.raises(InputError, match=r"t\.json cannot be read"):
        read_tasks("t.json", {})
