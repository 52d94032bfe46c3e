"""What a person reads of an event: the facts, without what only machines compare."""

from __future__ import annotations

from stretto_cli.event_line import facts_text


def test_facts_are_words_and_values() -> None:
    leased = {
        "task": "list/chunk-0001",
        "kind": "WORK_ITEM_KIND_TASK",
        "epoch": "2",
        "attempt": 1,
        "workerId": "worker-1",
        "sessionId": "01a1fd5c-f46c-73b2-bf04-88642d9a996d",
        "manifestDigest": "CaPrSsDpnmYXSL949HeU1cVMIxWN21z13JzeilWIrSc=",
    }
    assert facts_text(leased) == (
        "task=list/chunk-0001 kind=TASK epoch=2 attempt=1 worker_id=worker-1"
    )


def test_payloads_and_failures_stand_as_what_they_say() -> None:
    assert facts_text({"result": {"json": '{"a":1}'}}) == 'result={"a":1}'
    failure = {"reason": "EXIT_STATUS", "message": "sh: exit status 1:\n  no flag"}
    assert facts_text({"failure": failure}) == "failure=EXIT_STATUS: sh: exit status 1: no flag"
    assert facts_text({"result": {"shredded": {}}}) == "result=(shredded)"
    assert facts_text({"cause": "LOSS_CAUSE_PROCESS_GONE"}) == "cause=PROCESS_GONE"


def test_other_values_are_json() -> None:
    assert facts_text({"reason": "no need", "spawned": [{"name": "b"}]}) == (
        'reason="no need" spawned=[{"name": "b"}]'
    )
