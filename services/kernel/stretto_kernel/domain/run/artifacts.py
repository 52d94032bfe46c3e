"""What an attempt may leave behind: field rules of artifacts, and the order they stand in."""

from __future__ import annotations

from collections.abc import Sequence

from stretto.common.v1.payload_pb2 import Artifact

from stretto_kernel.domain.run.findings import LABEL_VALUE_CHARS_MAX, Findings

ARTIFACTS_MAX = 100
NAME_CHARS_MAX = 200


def by_name(artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return the artifacts in the order of their names: that of a report means nothing."""
    return tuple(sorted(artifacts, key=lambda artifact: artifact.name))


def check_artifacts(findings: Findings, field: str, artifacts: Sequence[Artifact]) -> None:
    """Note every artifact that is wrong by itself or has another's name."""
    if len(artifacts) > ARTIFACTS_MAX:
        findings.wrong(field, f"has more than {ARTIFACTS_MAX} entries")
        return
    seen = set()
    for index, artifact in enumerate(artifacts):
        at = f"{field}[{index}]"
        if not _is_name(artifact.name):
            findings.wrong(f"{at}.name", "must be a relative path of 1-200 characters")
        elif artifact.name in seen:
            findings.wrong(f"{at}.name", f"{artifact.name!r} is there twice")
        seen.add(artifact.name)
        findings.check_blob(f"{at}.blob", artifact.blob)
        findings.check_text(
            f"{at}.content_type", artifact.content_type, characters_max=LABEL_VALUE_CHARS_MAX
        )


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= NAME_CHARS_MAX
        and name.isprintable()
        and "\\" not in name
        and not {"", ".", ".."}.intersection(name.split("/"))
    )
