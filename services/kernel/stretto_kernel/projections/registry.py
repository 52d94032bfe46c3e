"""Every view of a partition. A new one is a module here and a file of SQL of the same name."""

from __future__ import annotations

from stretto_kernel.projections.artifacts import ARTIFACTS
from stretto_kernel.projections.attempts import ATTEMPTS
from stretto_kernel.projections.blackboard import BLACKBOARD
from stretto_kernel.projections.blob_references import BLOB_REFERENCES
from stretto_kernel.projections.queues import QUEUES
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.run_phases import RUN_PHASES
from stretto_kernel.projections.tasks import TASKS
from stretto_kernel.projections.usage import USAGE
from stretto_kernel.projections.view import View
from stretto_kernel.projections.workers import WORKERS

VIEWS: tuple[View, ...] = (
    RUN_INDEX,
    RUN_PHASES,
    TASKS,
    ATTEMPTS,
    ARTIFACTS,
    USAGE,
    BLOB_REFERENCES,
    BLACKBOARD,
    WORKERS,
    QUEUES,
)
BY_NAME = {view.name: view for view in VIEWS}
