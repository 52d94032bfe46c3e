"""How a person names a run: its id, the beginning or the end of it, or `last`.

An id is 35 characters of which the last few tell runs apart: people copy those. A full id costs no
question; anything else is looked up among the newest runs, in the list that trails the record by
moments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stretto_core.errors import InvalidArgument, NotFound
from stretto_core.ids import RunId, partition_of

if TYPE_CHECKING:
    from stretto_sdk.client import Client

LAST = ("last", "@last")
FRAGMENT_SIZE_MIN = 4
LOOKED_AT_MAX = 1_000
"""How many of the newest runs a fragment is looked for in."""
_FRAGMENT = re.compile(r"(p\d+-)?[0-9a-f]*")


async def find_run(client: Client, reference: str) -> RunId:
    """Return the run that a reference names.

    Raises NotFound (none does), InvalidArgument (several do; or it can be no reference).
    """
    run_id = RunId(reference.rpartition("/")[2])
    if partition_of(run_id) is not None:
        return run_id
    if reference in LAST:
        page = await client.pages.runs(page_size=1)
        if not page.runs:
            raise NotFound("there is no run in this namespace yet: `stretto run FILE` starts one")
        return page.runs[0].run_id
    if not _FRAGMENT.fullmatch(reference) or len(reference) < FRAGMENT_SIZE_MIN:
        raise InvalidArgument(
            f"{reference!r} is no run: give its id, at least {FRAGMENT_SIZE_MIN} characters of the "
            "beginning or the end of it, or `last`"
        )
    page = await client.pages.runs(page_size=LOOKED_AT_MAX)
    found = [each.run_id for each in page.runs if _matches(each.run_id, reference)]
    if len(found) > 1:
        listed = "\n  ".join(found[:10])
        raise InvalidArgument(f"{reference!r} may be any of {len(found)} runs:\n  {listed}")
    if not found:
        more = f" among the {LOOKED_AT_MAX:,} newest" if page.next_page_token else ""
        raise NotFound(f"no such run: {reference}{more}; `stretto runs` shows them")
    return found[0]


def _matches(run_id: RunId, fragment: str) -> bool:
    return (
        run_id.startswith(fragment)
        or run_id.partition("-")[2].startswith(fragment)
        or run_id.endswith(fragment)
    )
