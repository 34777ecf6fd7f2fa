"""Are the settings complete and valid? Values are never shown: some are secret."""

from collections.abc import Mapping

from pydantic import ValidationError

from deploy.doctor import Finding
from schema.settings import (
    ENV_PREFIX,
    FrontendSettings,
    MailSettings,
    NotifierSettings,
    OwnerSettings,
    Settings,
    WriterSettings,
)

PROCESSES: dict[str, type[Settings] | type[OwnerSettings]] = {
    "api": FrontendSettings,
    "writer": WriterSettings,
    "notifier": NotifierSettings,
    "migrate": OwnerSettings,
}
OF_THE_STACK = {
    "HOME", "URL", "ADMIN_DATABASE_URL", "POSTGRES_SOURCE", "REDIS_SOURCE", "JAVA_SOURCE",
    "MAVEN_REPOSITORY",
}  # fmt: skip
"""Read by `afterwrite up` and friends, not by the processes."""


async def check(settings: Mapping[str, str]) -> list[Finding]:
    findings = [_of_process(name, kind, settings) for name, kind in PROCESSES.items()]
    if settings.get(f"{ENV_PREFIX}SMTP_URL"):  # without one, no mail worker is meant to run
        findings.append(_of_process("mail-worker", MailSettings, settings))
    return findings + _unknown(settings)


def _of_process(
    name: str, kind: type[Settings] | type[OwnerSettings], settings: Mapping[str, str]
) -> Finding:
    subject = f"settings of {name}"
    given = {
        field: settings[key]
        for field in kind.model_fields
        if (key := ENV_PREFIX + field.upper()) in settings
    }
    try:
        kind(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = "; ".join(
            f"{ENV_PREFIX}{'.'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        todo = "Start a stack (`afterwrite up`) or set them; docs/ lists all settings."
        return Finding(subject, "bad", wrong, todo)
    return Finding(subject, "ok", "complete and valid")


def _unknown(settings: Mapping[str, str]) -> list[Finding]:
    kinds: list[type[Settings]] = [*PROCESSES.values(), MailSettings]
    known = {field.upper() for kind in kinds for field in kind.model_fields}
    known |= OF_THE_STACK | {f"{name}_FILE" for name in known}
    unknown = sorted(key for key in settings if key.removeprefix(ENV_PREFIX) not in known)
    if not unknown:
        return []
    text = f"nothing reads {', '.join(unknown)}"
    return [Finding("settings", "warning", text, "Is it a slip of the pen? Correct or unset it.")]
