"""Where a worker lets itself be dialed: only by a kernel that would reach it and no one else."""

from __future__ import annotations

import pytest
from stretto_sdk.worker.process import reachable


@pytest.mark.parametrize(
    ("kernel", "dialed"),
    [
        ("127.0.0.1:7233", True),
        ("localhost:7233", True),
        ("[::1]:7233", True),
        ("ipv4:127.0.0.1:7233", True),
        ("kernel.example:7233", False),
        ("10.0.0.7:7233", False),
    ],
)
def test_a_kernel_elsewhere_is_not_told_a_loopback_address(kernel: str, *, dialed: bool) -> None:
    assert reachable("127.0.0.1:5", from_kernel=kernel) == ("127.0.0.1:5" if dialed else "")
