"""The worker: leases attempts from the kernel and executes them."""

import stretto_core.telemetry.lean_structlog  # noqa: F401
