"""What is read to check a submission is kept for later as well, but more seldom than what is shown."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from frontend_api.reading_ports import Wanted
from tests.fakes import FakeCache
from tests.frontend import front_end

pytestmark = pytest.mark.contract


async def test_rows_that_are_checked_are_kept_seldom_and_those_that_are_read_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def wants(
        self: FakeCache, refs: Sequence[Wanted], reader: UUID, *, seldom: bool = False
    ) -> bool:
        asked.append(seldom)
        return True

    monkeypatch.setattr(FakeCache, "wants_rows", wants)
    async with front_end() as site, site.client() as ada:
        made = await ada.post("/v1/topics", json={"title": "A title", "body": "A body"})
        assert (made.status_code, asked) == (202, [True])
        asked.clear()
        assert (await ada.get(made.headers["location"])).status_code == 200
        assert asked
        assert not any(asked)
