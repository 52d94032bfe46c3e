"""Loads structlog without rich, which it would load for tracebacks that no service of ours shows.

That is a tenth of a service's start. Imported first by a service's package, before anything that
imports structlog; rich itself can be imported as ever.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # The import system's "not there".
    import structlog  # noqa: F401

    del sys.modules["rich"]
