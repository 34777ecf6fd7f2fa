"""Mails as they are queued, and dead ones, are what the AsyncAPI description says."""

from datetime import UTC, datetime

import pytest

from schema.envelope import Record
from schema.mail import Mail
from schema.mail_templates import TEMPLATES
from tests.described_messages import Messages, NotDescribed
from tests.descriptions import asyncapi
from tests.mailing import mail_to
from tests.unit.test_mail_message import KINDS, queued
from writer.mail.dead_letter import dead_letter
from writer.mail.state import encoded, mail_key
from writer.mail.window import MailRecord

pytestmark = pytest.mark.contract

MESSAGES = Messages(asyncapi())


def test_every_template_is_described_as_it_is_queued() -> None:
    assert {(kind.template, kind.version) for kind in KINDS} == set(TEMPLATES)
    for parameters in KINDS:
        mail = queued(parameters)
        value = mail.to_json()
        MESSAGES.check("mail", Record(mail_key(mail.mail_id), encoded(value), ()))
        assert Mail.from_json(value) == mail
        value["parameters"]["more"] = 1
        with pytest.raises(NotDescribed):
            MESSAGES.check("mail", Record(mail_key(mail.mail_id), encoded(value), ()))


def test_a_dead_mail_is_as_described() -> None:
    mail = mail_to("ada@example.com")
    record = MailRecord(3, 41, mail_key(mail.mail_id), encoded(mail.to_json()))
    letter = dead_letter(
        "site.mail.dlq", "site.mail", record, "refused", "550 no", 1, datetime.now(UTC)
    )
    headers = tuple(letter.headers)
    MESSAGES.check("mailDeadLetters", Record(letter.key or b"", letter.value or b"", headers))
    assert (letter.key, letter.value) == (record.key, record.value)
