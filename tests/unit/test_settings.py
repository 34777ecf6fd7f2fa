"""Settings: bounded, read once from the environment or a file, and no secret shows anywhere."""

from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr, ValidationError

from schema.settings import (
    ENV_PREFIX,
    FrontendSettings,
    MailSettings,
    NotifierSettings,
    OwnerSettings,
    ProcessSettings,
    Settings,
    WriterSettings,
)

pytestmark = pytest.mark.unit

SECRET = "s3cret-" + "x" * 40
REQUIRED: dict[str, Any] = {
    "signing_keys": f"k1:{SECRET}",
    "frontend_database_url": f"postgresql://afterwrite_frontend:{SECRET}@127.0.0.1/site",
    "writer_database_url": f"postgresql://afterwrite_writer:{SECRET}@127.0.0.1/site",
    "database_url": f"postgresql://afterwrite_owner:{SECRET}@127.0.0.1/site",
    "jwt_secret": SECRET,
    "alert_urls": f"json://site:{SECRET}@127.0.0.1:8080/alerts",
    "alert_secret": SECRET,
    "smtp_url": f"smtp://site:{SECRET}@127.0.0.1:25",
    "redis_url": f"redis://:{SECRET}@127.0.0.1:6379/0",
}
KINDS: list[type[Settings]] = [
    FrontendSettings,
    WriterSettings,
    NotifierSettings,
    MailSettings,
    OwnerSettings,
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        for name in kind.model_fields:
            monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)
            monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}_FILE", raising=False)


def _made(kind: type[Settings], **changed: Any) -> Settings:
    return kind.model_validate(REQUIRED | changed)


BOUNDS = [
    pytest.param(kind, name, bound, id=f"{kind.__name__}.{name} {bound}")
    for kind in KINDS
    for name, field in kind.model_fields.items()
    if name in kind.__annotations__ or kind is FrontendSettings
    for bound in field.metadata
    if isinstance(bound, Ge | Gt | Le | Lt)
]


@pytest.mark.parametrize(("kind", "name", "bound"), BOUNDS)
def test_a_bound_holds_at_its_very_edge(kind: type[Settings], name: str, bound: Any) -> None:
    whole = kind.model_fields[name].annotation is int
    step: Any = 1 if whole else 0.001
    if isinstance(bound, Ge | Le):
        edge = bound.ge if isinstance(bound, Ge) else bound.le
        beyond = edge - step if isinstance(bound, Ge) else edge + step
        assert getattr(_made(kind, **{name: edge}), name) == edge
    else:
        beyond = bound.gt if isinstance(bound, Gt) else bound.lt
    with pytest.raises(ValidationError):
        _made(kind, **{name: beyond})


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_bounded_from_below(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        if field.annotation in (int, float):
            assert any(isinstance(b, Ge | Gt) for b in field.metadata), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_says_what_it_is(kind: type[Settings]) -> None:
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_within_their_own_bounds(kind: type[Settings]) -> None:
    made = _made(kind)
    given = {name: getattr(made, name) for name in kind.model_fields}
    assert kind.model_validate(given) == made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefix", "Site"),
        ("prefix", "site:a"),
        ("prefix", "{site}"),
        ("prefix", ""),
        ("prefix", "-site"),
        ("prefix", "x" * 43),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("lanes", 0),
        ("lanes", 65),
        ("lanes", "two"),
    ],
)
def test_a_value_out_of_its_set_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_shows_in_any_text_of_the_settings(kind: type[Settings]) -> None:
    made = _made(kind)
    for shown in (repr(made), str(made), f"{made}", made.model_dump_json(exclude={"redis_url"})):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (WriterSettings, "signing_keys", "k1:s3cret-too-short"),
        (WriterSettings, "signing_keys", f"k1:{SECRET},s3cret-without-a-name"),
        (FrontendSettings, "jwt_secret", "s3cret-too-short"),
        (FrontendSettings, "port", "s3cret-by-mistake"),
    ],
)
def test_no_secret_shows_in_the_error_that_refuses_it(
    kind: type[Settings], name: str, value: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        _made(kind, **{name: value})
    assert "s3cret" not in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "value", ["", "k1", ":secret", f"k1:{SECRET},", f"{SECRET}:k1", "k1:short"]
)
def test_signing_keys_have_a_name_and_a_long_secret(value: str) -> None:
    with pytest.raises(ValidationError, match="KID:SECRET"):
        _made(WriterSettings, signing_keys=value)


def test_several_signing_keys_are_taken() -> None:
    made = WriterSettings.model_validate(REQUIRED | {"signing_keys": f"k2:{SECRET},k1:{SECRET}"})
    assert made.signing_keys.get_secret_value().startswith("k2:")


def test_values_come_from_the_environment_under_one_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWRITE_LANES", "4")
    monkeypatch.setenv("LANES", "5")
    monkeypatch.setenv("AFTERWRITE_UNKNOWN", "is left alone")
    assert Settings().lanes == 4


def test_a_name_ending_in_file_holds_the_path_of_the_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "database-url"
    secret.write_text("postgresql://owner:pässword@db/site\n", encoding="utf-8")
    monkeypatch.setenv("AFTERWRITE_DATABASE_URL_FILE", str(secret))
    made = OwnerSettings()
    assert made.database_url == SecretStr("postgresql://owner:pässword@db/site")
    assert "pässword" not in repr(made)


def test_the_environment_goes_before_a_file_and_a_given_value_before_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prefix").write_text("from-file")
    monkeypatch.setenv("AFTERWRITE_PREFIX_FILE", str(tmp_path / "prefix"))
    assert Settings().prefix == "from-file"
    monkeypatch.setenv("AFTERWRITE_PREFIX", "from-environment")
    assert Settings().prefix == "from-environment"
    assert Settings(prefix="given").prefix == "given"


def test_a_value_out_of_a_file_is_checked_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prefix").write_text("NOT A PREFIX")
    monkeypatch.setenv("AFTERWRITE_PREFIX_FILE", str(tmp_path / "prefix"))
    with pytest.raises(ValidationError):
        Settings()


def test_a_file_that_is_not_there_is_an_error_not_a_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AFTERWRITE_PREFIX_FILE", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        Settings()


def test_settings_cannot_be_changed_afterwards() -> None:
    made = Settings()
    with pytest.raises(ValidationError):
        made.lanes = 2  # type: ignore[misc]


def test_what_may_hold_a_secret_is_marked_so() -> None:
    kinds: list[type[Settings]] = [ProcessSettings, *KINDS]
    secret = {
        name
        for kind in kinds
        for name, field in kind.model_fields.items()
        if "SecretStr" in str(field.annotation) or not field.repr
    }
    assert secret == set(REQUIRED)
