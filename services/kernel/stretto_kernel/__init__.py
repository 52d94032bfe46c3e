"""The kernel: records every state change, dispatches work, keeps timers."""

import stretto_core.telemetry.lean_structlog  # noqa: F401
