"""Templates: from a name, a version, a locale and parameters to a subject and two bodies."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from schema.mail import Mail
from schema.mail_templates import Parameters, locale_of, parameters_of

TEMPLATES: Final = Path(__file__).parent / "templates"
_DAYS: Final = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
}
_MONTHS: Final = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
}
_WHEN: Final = {
    "en": "{day}, {date} {month} {year}, {time} UTC",
    "de": "{day}, {date}. {month} {year}, {time} UTC",
}


class Unrenderable(ValueError):
    """The template could not be filled: a fault of ours."""


@dataclass(frozen=True)
class Rendered:
    """What one mail says. `subject` is one line, made of the template's words and of numbers only."""

    locale: str
    subject: str
    text: str
    html: str


class Rendering:
    """Holds the compiled templates."""

    def __init__(self, folder: Path = TEMPLATES) -> None:
        self._plain = _environment(folder, escaping=False)
        self._html = _environment(folder, escaping=True)

    def render(self, mail: Mail) -> Rendered:
        """Raises `UnknownTemplate`, `BadParameters`, or `Unrenderable`."""
        parameters = parameters_of(mail)
        locale = locale_of(mail.locale)
        name = f"{locale}/{mail.template}.{mail.version}"
        values = _values(parameters, locale)
        numbers = {key: value for key, value in values.items() if type(value) is int}
        try:
            return Rendered(
                locale,
                self._plain.get_template(f"{name}.subject").render(numbers).strip(),
                self._plain.get_template(f"{name}.txt").render(values),
                self._html.get_template(f"{name}.html").render(values),
            )
        except TemplateError as error:
            raise Unrenderable(f"{name}: {type(error).__name__}") from error


def _environment(folder: Path, *, escaping: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=escaping,  # noqa: S701 (texts are no HTML; HTML is escaped)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _values(parameters: Parameters, locale: str) -> dict[str, object]:
    """What a template may use: the parameters, points of time in the words of the locale."""
    given = {name: getattr(parameters, name) for name in type(parameters).model_fields}
    return {
        name: when(value, locale) if isinstance(value, datetime) else value
        for name, value in given.items()
    }


def when(at: datetime, locale: str) -> str:
    """A point of time in words, to the minute, in UTC."""
    at = at.astimezone(UTC)
    return _WHEN[locale].format(
        day=_DAYS[locale][at.weekday()],
        date=at.day,
        month=_MONTHS[locale].split()[at.month - 1],
        year=at.year,
        time=f"{at:%H:%M}",
    )
