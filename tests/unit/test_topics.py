"""Topics and lanes: what is fixed about them, whatever the settings."""

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.identifiers import derived_id, new_row_id
from schema.settings import FrontendSettings, Settings
from schema.topics import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, lane_of, topics

pytestmark = pytest.mark.unit

SETTINGS = Settings.model_validate({"prefix": "site-a", "lanes": 3})


def test_every_topic_carries_the_prefix_and_is_named_once() -> None:
    names = [topic.name for topic in topics(SETTINGS).all()]
    assert len(set(names)) == len(names) == 9
    assert all(name.startswith("site-a.") for name in names)


def test_an_unapplied_command_is_never_deleted() -> None:
    for topic in (topics(SETTINGS).commands, topics(SETTINGS).dead_letters):
        assert topic.config["retention.ms"] == "-1"
        assert topic.config["retention.bytes"] == "-1"
        assert topic.config["cleanup.policy"] == "delete"


def test_no_topic_lets_an_incomplete_replica_lead() -> None:
    for topic in topics(SETTINGS, min_insync_replicas=2).all():
        assert topic.config["unclean.leader.election.enable"] == "false"
        assert topic.config["min.insync.replicas"] == "2"


def test_commands_and_outcomes_have_a_partition_for_each_lane() -> None:
    found = topics(SETTINGS)
    assert (found.commands.partitions, found.outcomes.partitions) == (3, 3)
    assert (
        found.mail.partitions == found.mail_state.partitions
    )  # a mail and its state stay together
    shared = (found.commands, found.outcomes, found.mail, found.mail_state)
    assert {t.partitions for t in found.all() if t not in shared} == {1}


def test_the_largest_request_fits_well_into_the_largest_message() -> None:
    largest_body = next(
        m.le for m in FrontendSettings.model_fields["max_body_bytes"].metadata if hasattr(m, "le")
    )
    assert largest_body * 2 <= MAX_REQUEST_BYTES
    assert MAX_REQUEST_BYTES * 2 <= MAX_MESSAGE_BYTES


@given(st.uuids(), st.integers(1, 64))
def test_a_stream_has_one_lane_that_exists(stream: uuid.UUID, lanes: int) -> None:
    lane = lane_of(stream, lanes)
    assert 0 <= lane < lanes
    assert lane == lane_of(uuid.UUID(str(stream)), lanes)
    assert lane_of(stream, 1) == 0


@pytest.mark.parametrize("lanes", [2, 3, 8, 64])
def test_streams_spread_evenly_also_those_made_in_one_go(lanes: int) -> None:
    """Ids of one millisecond differ by small steps only: they must not all meet in one lane."""
    made = {
        "new": [new_row_id() for _ in range(lanes * 500)],
        "derived": [derived_id("topic", str(n)) for n in range(lanes * 500)],
    }
    for ids in made.values():
        met = Counter(lane_of(i, lanes) for i in ids)
        assert len(met) == lanes
        assert min(met.values()) > 350
        assert max(met.values()) < 650
