"""The garbage collector of an API process leaves alone what stays, and what comes and goes."""

import gc

import pytest

from frontend_api.app import create_app
from frontend_api.garbage import collect_seldom
from tests.fakes import FakeBackends, frontend_settings

pytestmark = pytest.mark.unit


async def test_what_was_made_at_the_start_is_not_looked_through_again() -> None:
    before = gc.get_threshold()
    app = create_app(frontend_settings(), lambda s, c, m, _: FakeBackends(s, c, m))
    app.state.started = collect_seldom
    try:
        async with app.router.lifespan_context(app):
            assert gc.get_freeze_count() > 10_000
            assert gc.get_threshold()[0] > 10 * before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


async def test_a_process_that_only_makes_the_application_keeps_its_own_way() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    app = create_app(frontend_settings(), lambda s, c, m, _: FakeBackends(s, c, m))
    async with app.router.lifespan_context(app):
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
