"""`afterwrite token`: a bearer token for trying things out."""

from typing import Annotated

import typer

from deploy.errors import UsageTrouble
from deploy.settings import read_settings
from schema.contact import bare_address, language_tag
from schema.settings import FrontendSettings


def token(
    user: Annotated[str, typer.Option(help="Name of the user; the same name is the same user.")],
    role: Annotated[
        list[str] | None, typer.Option(help="A role, such as admin; may be repeated.")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.01, max=24 * 365, help="How long it is valid.")
    ] = 24,
    email: Annotated[
        str | None, typer.Option(help="Where mail to this user goes; one address.")
    ] = None,
    locale: Annotated[
        str | None, typer.Option(help="The language of what he is told, such as de.")
    ] = None,
) -> None:
    """Print a token that the running API accepts.

    Example: curl -H "Authorization: Bearer $(afterwrite token --user ada)" localhost:8000/v1/topics
    """
    from frontend_api.authentication import mint_token

    settings = read_settings(FrontendSettings)
    if settings.jwt_secret is None:
        raise UsageTrouble(
            "Tokens come from the issuer that AFTERWRITE_JWKS names.",
            "Get one there, or set AFTERWRITE_JWT_SECRET instead.",
        )
    if email is not None and bare_address(email) is None:
        raise UsageTrouble("--email is not one e-mail address.", "Write it as ada@example.org.")
    if locale is not None and language_tag(locale) is None:
        raise UsageTrouble("--locale is not a language tag.", "Write it as de, or en-GB.")
    secret = settings.jwt_secret.get_secret_value()
    audience = settings.jwt_audience
    roles = tuple(role or ())
    typer.echo(mint_token(secret, user, roles, hours * 3600, audience, email, locale))
