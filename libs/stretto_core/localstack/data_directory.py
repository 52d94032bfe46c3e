"""Where a suite keeps its data when nobody says.

Root's data stands where services keep theirs: `nobody`, who runs the embedded PostgreSQL, can
reach it there, and could not below root's private home.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def default_data_directory(environ: Mapping[str, str]) -> Path:
    """Return $STRETTO_DATA_DIR, else /var/lib/stretto for root, else the user's state directory."""
    if environ.get("STRETTO_DATA_DIR"):
        return Path(environ["STRETTO_DATA_DIR"])
    if os.geteuid() == 0:
        return Path("/var/lib/stretto")
    state_home = environ.get("XDG_STATE_HOME")
    return (Path(state_home) if state_home else Path.home() / ".local" / "state") / "stretto"
