"""What mail there is: the templates by name and version, and the parameters of each.

Who queues mail makes parameters here, and `queue` turns them into a `Mail`; who sends it reads them back by
`parameters_of`, so that both agree on what a template needs. Texts of users are in `name`, `items`,
`reason` and `text`. They reach the body only: a subject is given numbers, never texts.
"""

import uuid
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from schema.mail import Mail

LOCALES: Final = ("en", "de")
"""Languages that mail is written in. Any other is written in the first."""

MAX_ITEMS: Final = 20

Name = Annotated[str, Field(max_length=1000)]
Line = Annotated[str, Field(max_length=1000)]
Link = Annotated[str, Field(max_length=2000, pattern=r'^https?://[^\s<>"]+$')]
Count = Annotated[int, Field(ge=0, le=10_000_000)]


class UnknownTemplate(ValueError):
    """There is no template of this name and version."""


class BadParameters(ValueError):
    """The template needs other parameters. The message names the fields, never their values."""


class Parameters(BaseModel):
    """Base of the parameters of one template in one version."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    template: ClassVar[str]
    version: ClassVar[int]

    name: Name
    """How the user is addressed: his display name."""


class Delayed(Parameters):
    """Changes are safe, and wait longer than usual."""

    template = "delayed"
    version = 1

    count: Count
    """How many changes wait."""
    since: AwareDatetime
    """When the oldest was accepted."""
    until: AwareDatetime
    """How long they are tried: accepted + horizon."""
    items: Annotated[tuple[Line, ...], Field(max_length=MAX_ITEMS)] = ()
    """What waits, one line each, the first few of `count`."""
    link: Link
    """Where the user sees them."""


class SavedAfterAll(Parameters):
    """What a `Delayed` told of is decided; so many of it are saved."""

    template = "saved_after_all"
    version = 1

    count: Count
    link: Link


class Rejected(Parameters):
    """A change could not be saved, and will not be: its text comes back."""

    template = "rejected"
    version = 1

    count: Annotated[int, Field(ge=1, le=10_000_000)] = 1
    """The change itself, and those that were rejected because of it."""
    reason: Annotated[str, Field(max_length=4000)]
    """In plain words, in the user's language."""
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    text: Annotated[str, Field(max_length=262_144)] | None = None
    """The user's own text, whole; none if the change had none."""
    link: Link
    """Where he can edit and send it again."""


class Digest(Parameters):
    """Several mails in one, when there would have been too many."""

    template = "digest"
    version = 1

    since: AwareDatetime
    """What has happened from then on is counted."""
    delayed: Count
    saved: Count
    rejected: Count
    link: Link


TEMPLATES: Final[dict[tuple[str, int], type[Parameters]]] = {
    (kind.template, kind.version): kind for kind in (Delayed, SavedAfterAll, Rejected, Digest)
}


def queue(
    parameters: Parameters,
    *,
    mail_id: uuid.UUID,
    to: str,
    locale: str,
    created_at: datetime,
    user: uuid.UUID | None = None,
) -> Mail:
    """The mail to put on the mail topic, with the key `str(mail_id)`."""
    return Mail(
        mail_id=mail_id,
        template=parameters.template,
        version=parameters.version,
        locale=locale,
        to=to,
        parameters=parameters.model_dump(mode="json"),
        created_at=created_at,
        user=user,
    )


def parameters_of(mail: Mail) -> Parameters:
    """The parameters, checked. Raises `UnknownTemplate` or `BadParameters`."""
    kind = TEMPLATES.get((mail.template, mail.version))
    if kind is None:
        raise UnknownTemplate(f"no template {mail.template[:64]!r} in version {mail.version}")
    try:
        return kind.model_validate(dict(mail.parameters))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])[:64]}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise BadParameters(wrong[:1000]) from error


def locale_of(wanted: str) -> str:
    """The language of ours that is nearest: of `de-AT` or `de_AT`, `de`; else the first."""
    language = wanted.replace("_", "-").partition("-")[0].lower()
    return language if language in LOCALES else LOCALES[0]
