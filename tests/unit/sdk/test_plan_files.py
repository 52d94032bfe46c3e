"""Plan files as wholes: every mistake at once with its place; parameters; included files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import FieldViolation, InvalidArgument, Unimplemented
from stretto_sdk.plan_files.assembly import INCLUDE_DEPTH_MAX, INCLUDED_FILES_MAX
from stretto_sdk.plan_files.mistakes import PlanMistake, PlanRefused
from stretto_sdk.plan_files.read import read_plan_file, read_plan_text
from stretto_sdk.plan_form import RunForm, parse_run

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files below a directory and return the path of the last."""

    def written(**files: str) -> Path:
        path = tmp_path
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return path

    return written


def refused(path: Path, **parameters: object) -> list[PlanMistake]:
    with pytest.raises(PlanRefused) as raised:
        read_plan_file(path, parameters=parameters)
    return list(raised.value.mistakes)


def told(mistakes: list[PlanMistake]) -> list[str]:
    """Each mistake as `file:line:column field: description`, the file by its name alone."""
    return [
        f"{Path(each.file).name}:{each.line}:{each.column} {each.field}: {each.description}"
        for each in mistakes
    ]


def tasks_of(form: RunForm) -> dict[str, pb.TaskSpec]:
    return {task.name: task for task in form.graph.tasks}


THIRTY = """\
nmae: nightly
failure_policy: fail_fas
run_timeout: 30
cancel_grace: 5 minutes
task_count_max: 0
labels: {team: 3, team: x}
tasks:
  - name: fetch all
    exectuor: process
    after: fetch
  - name: a
    executor: proces
    arguments: [ls]
    retry: {max_attempts: 0, jitter: 2, coeficient: 2, initial_interval: soon}
    timeouts: {attempt: 10, hartbeat: 5s}
    priority: 101
    may_spawn: yes
    on_failure: ignored
    join: n_succeeded
  - name: b
    executor: acme.do
    after: [aa, b, {task: c, scope: sub}, 7]
    inputs:
      one: {from: tasks}
      two: {from: input, pointer: word}
      three: {value: 5}
      four: !secret x
      five: .inf
  - name: b
    executor: acme/render
    queue: ""
"""


def test_a_plan_with_more_than_thirty_mistakes_reports_each_once_sorted_by_place(
    write: Write,
) -> None:
    found = refused(write(plan=THIRTY))
    where = [(each.line, each.column, each.field) for each in found]
    assert where == [
        (1, 1, "nmae"),
        (2, 17, "failure_policy"),
        (3, 14, "run_timeout"),
        (4, 15, "cancel_grace"),
        (5, 17, "task_count_max"),
        (6, 16, "labels.team"),
        (6, 19, ""),
        (8, 5, "tasks[0].executor"),
        (8, 11, "tasks[0].name"),
        (9, 5, "tasks[0].exectuor"),
        (10, 12, "tasks[0].after"),
        (12, 15, "tasks[1].executor"),
        (13, 16, "tasks[1].arguments"),
        (14, 27, "tasks[1].retry.max_attempts"),
        (14, 38, "tasks[1].retry.jitter"),
        (14, 41, "tasks[1].retry.coeficient"),
        (14, 74, "tasks[1].retry.initial_interval"),
        (15, 25, "tasks[1].timeouts.attempt"),
        (15, 29, "tasks[1].timeouts.hartbeat"),
        (16, 15, "tasks[1].priority"),
        (17, 16, "tasks[1].may_spawn"),
        (18, 17, "tasks[1].on_failure"),
        (19, 11, "tasks[1].join"),
        (22, 13, "tasks[2].after[0]"),
        (22, 17, "tasks[2].after[1]"),
        (22, 20, "tasks[2].after[2]"),
        (22, 37, "tasks[2].after[2].scope"),
        (22, 43, "tasks[2].after[3]"),
        (24, 19, "tasks[2].inputs.one.from"),
        (25, 35, "tasks[2].inputs.two.pointer"),
        (26, 14, "tasks[2].inputs.three.from"),
        (27, 13, ""),
        (28, 13, ""),
        (29, 11, "tasks[3].name"),
        (30, 15, "tasks[3].executor"),
        (31, 12, "tasks[3].queue"),
    ]
    by_field = {each.field: each.description for each in found}
    assert 'did you mean "name"?' in by_field["nmae"]
    assert 'did you mean "fail_fast"?' in by_field["failure_policy"]
    assert 'did you mean "process"?' in by_field["tasks[1].executor"]
    assert by_field["tasks[1].may_spawn"] == 'must be true or false, not the text "yes"'
    assert by_field["tasks[2].after[0]"].startswith("no task is named 'aa'")
    assert 'did you mean "subtree"?' in by_field["tasks[2].after[2].scope"]


@pytest.mark.parametrize("word", ["depends_on", "needs"])
def test_what_other_systems_call_a_field_is_understood(write: Write, word: str) -> None:
    first, second = "name: a, executor: acme.do", f"name: b, executor: acme.do, {word}: [a]"
    tasks = f"tasks:\n  - {{{first}}}\n  - {{{second}}}"
    (found,) = refused(write(plan=tasks))
    assert found.description == 'is not a field here; did you mean "after"?'


def test_the_message_opens_with_the_file_and_counts(write: Write) -> None:
    path = write(plan=THIRTY)
    with pytest.raises(PlanRefused) as raised:
        read_plan_file(path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{path} has 36 mistakes:"
    assert lines[1].startswith(f"  {path}:1:1: nmae: is not a field here")
    assert len(lines) == 37


def test_the_message_is_what_the_docs_show() -> None:
    plan = """\
name: count
tasks:
  - name: write
    exectuor: process
  - name: report
    executor: acme.do
    arguments: {argv: [cat]}
    timeouts: {attempt: 30}
    after: [wrte]
"""
    with pytest.raises(PlanRefused) as raised:
        read_plan_text(plan, source="night.yaml")
    page = Path(__file__).parents[3] / "docs" / "plan-files.md"
    assert f"```text\n{raised.value}\n```" in page.read_text()


def test_what_lies_between_tasks_is_named_before_anything_is_sent(write: Write) -> None:
    plan = """\
tasks:
  - {name: a, executor: acme.do, after: [c]}
  - {name: b, executor: acme.do, after: [a]}
  - {name: c, executor: acme.do, after: [b]}
  - {name: d, executor: acme.do, after: [e]}
  - {name: e, executor: acme.do, after: [d]}
output: {from: task, task: aa}
"""
    assert told(refused(write(plan=plan))) == [
        "plan.yaml:2:42 tasks[0].after[0]: the dependencies form a cycle: a -> c -> b -> a; "
        "take one of these edges away",
        "plan.yaml:5:42 tasks[3].after[0]: the dependencies form a cycle: d -> e -> d; "
        "take one of these edges away",
        "plan.yaml:7:28 output.task: no task is named 'aa'; did you mean \"a\"?",
    ]
    plan = """\
tasks:
  - {name: a, executor: acme.do}
  - {name: b, executor: acme.do, after: [a]}
  - name: c
    executor: acme.do
    after: [b]
    inputs: {far: {from: task, task: a}, all: {from: subtree, task: b}}
  - name: d
    executor: acme.do
    after: [a]
    inputs: {x: {from: task, task: c}, y: {from: task, task: bb}}
  - {name: e, executor: acme.do, clean_up: true, after: [a],
     inputs: {x: {from: task, task: d}}}
  - {name: f, executor: acme.do, after: [e, a, a]}
"""
    assert told(refused(write(plan=plan))) == [
        "plan.yaml:7:69 tasks[2].inputs.all.task: needs the whole subtree of 'b' to come before: "
        'add {"task": "b", "scope": "subtree"} to after',
        "plan.yaml:11:36 tasks[3].inputs.x.task: 'c' does not come before this task: "
        "add it to after",
        "plan.yaml:11:62 tasks[3].inputs.y.task: no task is named 'bb'; did you mean \"b\"?",
        "plan.yaml:12:58 tasks[4].after[0]: a clean-up task may depend on clean-up tasks only; "
        "it runs after all others",
        "plan.yaml:14:42 tasks[5].after[0]: 'e' is a clean-up task and this one is not",
        "plan.yaml:14:48 tasks[5].after[2]: 'a' is there twice",
    ]


def test_yaml_and_json_of_the_same_plan_are_the_same_run(write: Write, tmp_path: Path) -> None:
    value = {
        "name": "both",
        "input": {"n": 1},
        "tasks": [{"name": "a", "executor": "sleep", "arguments": {"duration": "1s"}}],
        "output": {"from": "input", "pointer": "/n"},
    }
    (tmp_path / "plan.json").write_text(json.dumps(value))
    in_yaml = write(
        plan="""\
name: both
input: {n: 1}
tasks:
  - name: a
    executor: sleep
    arguments: {duration: 1s}
output: {from: input, pointer: /n}
"""
    )
    assert read_plan_file(in_yaml) == read_plan_file(tmp_path / "plan.json") == parse_run(value)


# What the kernel finds.


def test_the_kernels_findings_come_back_with_line_and_column(write: Write) -> None:
    path = write(
        plan="""\
tasks:
  - name: a
    executor: acme.do
  - name: b
    executor: acme.do
    after: [a]
    arguments: {argv: [ls]}
    inputs: {x: {from: task, task: a, pointer: "/~"}}
"""
    )
    form = read_plan_file(path)
    named = form.told(
        InvalidArgument(
            "the plan is not valid",
            violations=[
                FieldViolation("task_graph.tasks[1].inputs['x'].task_output.pointer", "p"),
                FieldViolation("task_graph.tasks[1].dependencies[0].task", "d"),
                FieldViolation("task_graph.tasks[1].arguments_json", "a"),
                FieldViolation("input.json", "is not the file's"),
                FieldViolation("task_graph.tasks", "cycle"),
            ],
        )
    )
    assert isinstance(named, PlanRefused)
    assert [(each.line, each.column, each.description) for each in named.mistakes] == [
        (0, 0, "is not the file's"),
        (2, 3, "cycle"),
        (6, 13, "d"),
        (7, 16, "a"),
        (8, 48, "p"),
    ]
    unserved = form.told(Unimplemented("asks for more", field="task_graph.tasks[0].verification"))
    assert unserved.message == f"{path}:2:5: asks for more"
    other = InvalidArgument("the request is not valid")
    assert form.told(other) is other


# Parameters.

DECLARED = """\
parameters:
  who: {default: world, description: whom to greet}
  times: {type: integer, default: 2}
  factor: {type: number, default: 1.5}
  loud: {type: boolean, default: false}
  files: {type: list, default: [a]}
  more: {type: object, required: false}
  queue: {required: false}
tasks:
  - name: greet-${params.who}
    executor: acme.do
    arguments:
      argv: [echo, "hello, ${params.who} x${params.times}", "$${params.who}", "${inputs.who}"]
      files: ${params.files}
      loud: ${params.loud}
    retry: {max_attempts: "${params.times}", coefficient: "${params.factor}"}
    queue: ${params.queue}
    inputs: {more: {from: literal, value: "${params.more}"}}
"""


def test_parameters_are_put_in_with_their_types(write: Write) -> None:
    path = write(plan=DECLARED)
    task = read_plan_file(path).graph.tasks[0]
    assert task.name == "greet-world"
    assert json.loads(task.arguments_json) == {
        "argv": ["echo", "hello, world x2", "${params.who}", "${inputs.who}"],
        "files": ["a"],
        "loud": False,
    }
    assert (task.retry.max_attempts, task.retry.coefficient, task.queue) == (2, 1.5, "")
    assert task.inputs["more"].literal.json == "null"
    given = {"who": "you", "times": "5", "loud": "true", "files": '["b", 1]', "more": {"x": 1}}
    task = read_plan_file(path, parameters=given).graph.tasks[0]
    assert task.name == "greet-you"
    assert task.retry.max_attempts == 5
    assert json.loads(task.arguments_json)["files"] == ["b", 1]
    assert json.loads(task.arguments_json)["loud"] is True
    assert task.inputs["more"].literal.json == '{"x":1}'


def test_wrong_settings_are_all_named(write: Write) -> None:
    found = refused(
        write(plan=DECLARED), times="many", loud="yes", wo="x", files='{"a": 1}', more=7
    )
    assert [str(each) for each in found] == [
        "--set wo: no parameter is named 'wo'; did you mean \"who\"?",
        "--set times: the parameter 'times' is of type integer; this is text",
        "--set loud: the parameter 'loud' is of type boolean; this is text",
        "--set files: the parameter 'files' is of type list, not an object",
        "--set more: the parameter 'more' is of type object, not a number",
    ]


def test_a_setting_of_a_plan_without_parameters_is_told_where_an_input_goes(write: Write) -> None:
    plain = "tasks:\n  - {name: a, executor: sleep, arguments: {duration: 1s}}\n"
    assert [str(each) for each in refused(write(plan=plain), who="x")] == [
        "--set who: no parameter is named 'who'; the file declares none "
        "(a run's input is given with --input)"
    ]


def test_wrong_declarations_and_references_are_all_named(write: Write) -> None:
    plan = """\
parameters:
  Who: {}
  must: {description: say so}
  both: {default: x, required: true}
  size: {type: integer, default: big}
  kind: {type: text}
  list: {type: list, default: []}
tasks:
  - name: ${params.siz}
    executor: acme.do
    arguments: {a: "${params.list} more", b: "x ${params.Bad} y"}
"""
    assert told(refused(write(plan=plan), kind="x")) == [
        ":0:0 --set must: the parameter 'must' must be given (say so)",
        'plan.yaml:2:8 parameters.Who: "Who" is not the name of a parameter: a-z, 0-9 and _, '
        "64 at most",
        "plan.yaml:4:32 parameters.both.required: what must be given has no use for a default: "
        "take one of the two away",
        "plan.yaml:5:34 parameters.size.default: is a string, and the type is integer",
        'plan.yaml:6:16 parameters.kind.type: "text" is not one of string, integer, number, '
        "boolean, list, object",
        "plan.yaml:9:11 tasks[0].name: no parameter is named 'siz'; did you mean \"size\"?",
        "plan.yaml:11:20 tasks[0].arguments.a: the parameter 'list' is a list, "
        "which cannot stand inside a text",
        "plan.yaml:11:46 tasks[0].arguments.b: no parameter is named 'Bad'; "
        "known: must, both, size, kind, list",
    ]


@pytest.mark.parametrize(
    "value", ['["${params.long}"]', '"${params.long}${params.long}"'], ids=["whole", "written"]
)
def test_parameters_that_unfold_to_more_than_a_plan_may_have_are_refused(value: str) -> None:
    uses = ",".join(f"a{number}: {value}" for number in range(100))
    plan = f"parameters: {{long: {{default: {'x' * 1_000_000}}}}}\n"
    plan += f"tasks: [{{name: a, executor: acme.do, arguments: {{{uses}}}}}]"
    with pytest.raises(PlanRefused, match="parameters unfold to more than 64 MiB"):
        read_plan_text(plan, source="x")


def test_what_is_wrong_with_parameters_is_told_in_time_that_grows_with_the_text() -> None:
    begun = f"tasks: [{{name: '{'${params.' * 100_000}', executor: acme.do}}]"
    with pytest.raises(PlanRefused, match=r"\$\{params. has no end"):
        read_plan_text(begun, source="x")
    # Each would be compared with each: eight million comparisons, and as many names told.
    declared = ",".join(f"name{number}: {{default: x}}" for number in range(2_000))
    wrong = ",".join(f"'${{params.nam{number}}}'" for number in range(4_000))
    plan = f"parameters: {{{declared}}}\ntasks: [{{name: a, executor: acme.do, arguments: "
    with pytest.raises(PlanRefused, match="and 1980 more") as raised:
        read_plan_text(f"{plan}{{a: [{wrong}]}}}}]", source="x")
    assert len(raised.value.mistakes) == 4_000


def test_a_plan_as_a_dict_has_its_defaults() -> None:
    task = {"name": "${params.a}", "executor": "process"}
    form = parse_run({"parameters": {"a": {"default": "x"}}, "tasks": [task]})
    assert form.graph.tasks[0].name == "x"
    with pytest.raises(InvalidArgument) as raised:
        parse_run({"parameters": {"a": {}}, "include": [{"file": "x"}], "tasks": [task]})
    assert [each.field for each in raised.value.violations] == [
        "include",
        "parameters.a",
    ]


# Includes.

PART = """\
parameters:
  text: {default: none}
  after: {type: list, default: []}
tasks:
  - {name: first, executor: process, arguments: {argv: [echo, "${params.text}"]},
     after: "${params.after}"}
  - {name: last, executor: acme.do, after: [{task: first, scope: subtree}, outer],
     inputs: {x: {from: task, task: first}, y: {from: literal, value: {task: first}}}}
"""


def test_included_tasks_come_under_their_prefix_with_their_parameters(write: Write) -> None:
    path = write(
        parts__part=PART,
        plan="""\
parameters: {text: {default: deep}}
include:
  - {file: parts/part.yaml, prefix: one-, with: {text: "${params.text}!", after: [outer]}}
  - {file: parts/part.yaml, prefix: two-}
tasks:
  - {name: outer, executor: acme.do}
  - {name: end, executor: acme.do, after: [one-last, two-last]}
""",
    )
    with pytest.raises(PlanRefused, match="'outer' is there twice"):
        read_plan_file(write(plan2=path.read_text().replace("end,", "outer,")))
    form = read_plan_file(path)
    tasks = tasks_of(form)
    assert list(tasks) == ["outer", "end", "one-first", "one-last", "two-first", "two-last"]
    assert json.loads(tasks["one-first"].arguments_json) == {"argv": ["echo", "deep!"]}
    assert json.loads(tasks["two-first"].arguments_json) == {"argv": ["echo", "none"]}
    assert [edge.task for edge in tasks["one-first"].dependencies] == ["outer"]
    assert [edge.task for edge in tasks["one-last"].dependencies] == [
        "one-first",
        "outer",
    ]
    assert tasks["one-last"].inputs["x"].task_output.task == "one-first"
    assert tasks["one-last"].inputs["y"].literal.json == '{"task":"first"}'


def test_mistakes_in_included_files_are_told_by_their_own_places(write: Write) -> None:
    path = write(
        part="""\
name: a run of its own
tasks:
  - {name: a, executor: proces}
  - {name: b, executor: acme.do, after: [aa], queue: "${params.q}"}
""",
        broken="name: 'x",
        plan="""\
include:
  - {file: part.yaml, prefix: p-, with: {z: 1}}
  - {file: broken.yaml}
  - {file: absent.yaml}
  - {file: ../outside.yaml}
  - {flie: part.yaml}
tasks:
  - {name: c, executor: acme.do, after: [p-bb]}
""",
    )
    found = told(refused(path))
    for place, says in (
        ("broken.yaml:1:7 ", "quote or a bracket is not closed"),
        ("plan.yaml:2:45 include[0].with.z", "no parameter is named 'z'"),
        ("plan.yaml:4:12 include[2].file", "absent.yaml: No such file"),
        ("plan.yaml:5:12 include[3].file", "lies outside of"),
        ("plan.yaml:6:5 include[4].file", "is required"),
        ("plan.yaml:6:6 include[4].flie", 'did you mean "file"?'),
        ("plan.yaml:8:42 tasks[0].after[0]", 'did you mean "p-b"?'),
        ("part.yaml:1:1 name", "belongs to a run, and this file is included"),
        ("part.yaml:3:25 tasks[0].executor", 'did you mean "process"?'),
        ("part.yaml:4:42 tasks[1].after[0]", "no task is named 'aa'"),
        ("part.yaml:4:54 tasks[1].queue", "no parameter is named 'q'"),
    ):
        assert [each for each in found if each.startswith(place) and says in each], (place, found)
    assert len(found) == 11, found


def test_the_kernels_findings_in_an_included_task_name_its_file(write: Write) -> None:
    path = write(
        part="tasks:\n  - {name: a, executor: acme.do}\n  - {name: b, executor: acme.do}\n",
        plan="include: [{file: part.yaml}]\ntasks: [{name: own, executor: acme.do}]\n",
    )
    form = read_plan_file(path)
    refusal = InvalidArgument("x", violations=[FieldViolation("task_graph.tasks[2].name", "no")])
    named = form.told(refusal)
    assert isinstance(named, PlanRefused)
    assert told(list(named.mistakes)) == ["part.yaml:3:12 tasks[1].name: no"]


def test_wrong_tasks_are_not_hidden_by_included_ones(write: Write) -> None:
    path = write(
        part="tasks: [{name: a, executor: acme.do}]\n",
        plan="include: [{file: part.yaml}]\ntasks: yes\n",
    )
    assert told(refused(path)) == ["plan.yaml:2:8 tasks: must be a list, not a string"]
    assert list(tasks_of(read_plan_file(write(plan=path.read_text()[:-11])))) == ["a"]


def test_files_that_include_each_other_are_named(write: Write) -> None:
    path = write(
        a="include: [{file: b.yaml}]\n",
        b="include: [{file: plan.yaml}]\n",
        plan="include: [{file: a.yaml}]\n",
    )
    found = refused(path)
    cycle = next(each for each in found if "include each other" in each.description)
    assert Path(cycle.file).name == "b.yaml"
    assert cycle.description.endswith("a.yaml -> b.yaml -> " + str(path))


def test_includes_are_bounded_in_depth_and_number(write: Write) -> None:
    deep = [f"include: [{{file: f{n + 1}.yaml}}]\n" for n in range(INCLUDE_DEPTH_MAX + 2)]
    found = refused(write(**{f"f{n}": deep[n] for n in reversed(range(len(deep)))}))
    assert any(f"deeper than {INCLUDE_DEPTH_MAX}" in each.description for each in found)
    many = "include:\n" + "  - {file: part.yaml}\n" * (INCLUDED_FILES_MAX + 1)
    found = refused(write(part="tasks: []\n", plan=many))
    assert any(f"more than {INCLUDED_FILES_MAX} files" in each.description for each in found)


def test_a_directory_above_is_included_from_when_the_caller_says_so(
    write: Write, tmp_path: Path
) -> None:
    write(shared="tasks: [{name: a, executor: acme.do}]\n")
    path = write(plans__plan="include: [{file: ../shared.yaml}]\n")
    with pytest.raises(PlanRefused, match="lies outside of"):
        read_plan_file(path)
    assert list(tasks_of(read_plan_file(path, root=tmp_path))) == ["a"]
    (tmp_path / "plans" / "link.yaml").symlink_to(tmp_path / "shared.yaml")
    path.write_text("include: [{file: link.yaml}]\n")
    with pytest.raises(PlanRefused, match="lies outside of"):
        read_plan_file(path)


def test_text_without_a_file_includes_from_the_directory_given(
    write: Write, tmp_path: Path
) -> None:
    write(part="tasks: [{name: a, executor: acme.do}]\n")
    text = "include: [{file: part.yaml, prefix: x-}]\n"
    form = read_plan_text(text, source="standard input", directory=tmp_path)
    assert list(tasks_of(form)) == ["x-a"]
