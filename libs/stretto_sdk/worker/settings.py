"""What the SDK's Worker takes from the environment where its caller says nothing."""

from __future__ import annotations

import os

from stretto_core.localstack.data_directory import default_data_directory

from stretto_sdk.worker.identity import WorkerIdentity, claim_identity


def identity_of(name: str | None) -> WorkerIdentity:
    """Return who a worker is: `name`, else STRETTO_WORKER_NAME, else the next free identity of the
    data directory. Raises NoIdentityLeft.
    """
    said = name or os.environ.get("STRETTO_WORKER_NAME")
    if said:
        return WorkerIdentity(said)
    return claim_identity(default_data_directory(os.environ))
