"""A worker's identity: kept by a lock, taken again after a restart."""

from __future__ import annotations

from pathlib import Path

from stretto_sdk.worker.identity import claim_identity


def test_a_second_process_takes_the_next_and_a_restart_the_same(tmp_path: Path) -> None:
    first, second = claim_identity(tmp_path), claim_identity(tmp_path)
    assert first.worker_id != second.worker_id
    first.release()
    again = claim_identity(tmp_path)
    assert again.worker_id == first.worker_id
    again.release()
    second.release()


def test_a_file_that_a_crash_left_empty_is_made_anew(tmp_path: Path) -> None:
    claim_identity(tmp_path).release()
    (tmp_path / "workers" / "worker-1.id").write_bytes(b"")
    made = claim_identity(tmp_path)
    assert "worker-1" in made.worker_id
    made.release()
