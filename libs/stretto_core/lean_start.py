"""The first import of a service's main module: the others cost a quarter less after it.

The garbage collector rests until `imports_done`: what imports make is never garbage. And structlog
is loaded without rich, which it would load for tracebacks that no service of ours shows; rich
itself can be imported as ever.
"""

import gc
import sys

gc.disable()
if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # The import system's "not there".
    import structlog  # noqa: F401

    del sys.modules["rich"]


def imports_done() -> None:
    """Collect garbage from now on, and never look at what is there already. Idempotent."""
    gc.freeze()
    gc.enable()
