"""The texts of notices to users, in each language that ships; any other is written in English.

A text is made of numbers and times, never of what users wrote. Times name their zone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from schema.mail_templates import locale_of

_WEEKDAYS: Final = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
}
_MONTHS: Final = {
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December",
    ),
    "de": (
        "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September",
        "Oktober", "November", "Dezember",
    ),
}  # fmt: skip
_WHEN: Final = {
    "en": "{weekday}, {day} {month} {year}, {hour:02}:{minute:02} {zone}",
    "de": "{weekday}, den {day}. {month} {year}, {hour:02}:{minute:02} Uhr {zone}",
}


@dataclass(frozen=True)
class Plural:
    """A phrase with a number in it. Both languages that ship have two forms."""

    one: str
    other: str

    def __call__(self, count: int) -> str:
        return (self.one if count == 1 else self.other).format(n=count)


@dataclass(frozen=True)
class Texts:
    """All texts of one language."""

    waits: Plural
    until: str
    over: str
    saved: Plural
    some_rejected: Plural
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why something was rejected, by code, where the writer's own words are in another language."""


_TEXTS: Final[Mapping[str, Texts]] = {
    "en": Texts(
        waits=Plural("1 change is safe and waits", "{n} changes are safe and wait"),
        until="{waits}; we keep trying until {when}.",
        over="{waits}; the time for trying is over. You will be told what becomes of it.",
        saved=Plural(
            "1 change that waited is saved now.", "{n} changes that waited are saved now."
        ),
        some_rejected=Plural(
            "1 could not be saved: a notice of its own says why.",
            "{n} could not be saved: notices of their own say why.",
        ),
    ),
    "de": Texts(
        waits=Plural("1 Änderung ist sicher und wartet", "{n} Änderungen sind sicher und warten"),
        until="{waits}; wir versuchen es bis {when} weiter.",
        over="{waits}; die Zeit für Versuche ist um. Sie erfahren, was daraus wird.",
        saved=Plural(
            "1 Änderung, die gewartet hat, ist jetzt gespeichert.",
            "{n} Änderungen, die gewartet haben, sind jetzt gespeichert.",
        ),
        some_rejected=Plural(
            "1 konnte nicht gespeichert werden: Eine eigene Nachricht sagt, warum.",
            "{n} konnten nicht gespeichert werden: Eigene Nachrichten sagen, warum.",
        ),
        reasons={
            "not_found": "Das, was geändert werden sollte, gibt es nicht.",
            "target_missing": "Das, worauf es sich bezieht, gibt es nicht.",
            "parent_rejected": "Das, worauf es sich bezieht, konnte nicht gespeichert werden.",
            "forbidden": "Das ist Ihnen nicht erlaubt.",
            "version_conflict": "Es wurde inzwischen geändert.",
            "id_taken": "Diese Kennung ist vergeben.",
            "idempotency_key_reused": "Dieser Schlüssel kam schon mit einer anderen Anfrage.",
            "invalid": "Die Anfrage ist nicht gültig.",
            "unique_violation": "Etwas Gleiches gibt es schon.",
            "check_violation": "Eine Regel der Datenbank lehnt es ab.",
            "data_exception": "Die Datenbank kann diesen Wert nicht speichern.",
            "limit_exceeded": "Eine Grenze der Datenbank lehnt es ab.",
            "expired": "Es konnte nicht rechtzeitig gespeichert werden.",
            "crashed_writer": "Es konnte nicht sicher verarbeitet werden.",
        },
    ),
}


def delayed(locale: str, count: int, until: datetime, now: datetime) -> str:
    """So many changes wait, and how long they are tried. `until` may be over: nobody gives up then
    but the writer, when it can."""
    texts = _TEXTS[locale_of(locale)]
    if until <= now:
        return texts.over.format(waits=texts.waits(count))
    return texts.until.format(waits=texts.waits(count), when=shown_time(locale, until))


def saved_after_all(locale: str, saved: int, rejected: int) -> str:
    """What a delay had held up is decided."""
    texts = _TEXTS[locale_of(locale)]
    told = [texts.saved(saved)]
    if rejected:
        told.append(texts.some_rejected(rejected))
    return " ".join(told)


def rejected(locale: str, code: str, detail: str) -> str:
    """Why a change was rejected. `detail` is what the writer says, in English."""
    return _TEXTS[locale_of(locale)].reasons.get(code, detail)


def shown_time(locale: str, when: datetime) -> str:
    """A time to the minute, with its weekday, in UTC, which it names: we know nobody's zone."""
    language, at = locale_of(locale), when.astimezone(UTC)
    return _WHEN[language].format(
        weekday=_WEEKDAYS[language][at.weekday()],
        day=at.day,
        month=_MONTHS[language][at.month - 1],
        year=at.year,
        hour=at.hour,
        minute=at.minute,
        zone="UTC",
    )
