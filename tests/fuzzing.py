"""Fuzzing from the API's own description: schemathesis, told what exists and what may be answered.

Every answer is held against the description twice: by schemathesis's own checks, and by
`tests.conformance`, which also minds members and headers that are not described.
"""

import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import httpx2
import schemathesis
from schemathesis import Case, GenerationMode, HookContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema

from tests.conformance import Conformance, NotAsDescribed

VALID_AND_REFUSED: Final = {
    "target_missing",  # what it refers to does not exist
    "idempotency_key_reused",
    "version_conflict",
    "precondition_required",
}
"""Codes of refusals that no schema can foresee, beside 401, 403, 404 and 409."""
REFUSALS: Final = ["400", "401", "403", "404", "405", "409", "412", "415", "422", "428"]
NO_SCHEMA_SAYS: Final = {
    "stream",  # all mutations of a command are of one stream
    "cursor",  # a cursor holds for its list only
    "uuid7_time",  # the id of a new row was made lately
    "int_type",  # 1.0 is an integer to JSON Schema; here it has to be written as one
}
"""Codes of places in a request that no schema can foresee."""
_EXISTING_SHARE: Final = 0.7

AnyCase: TypeAlias = Case[Any]


@dataclass
class Fuzz:
    """One run. `rows` are ids that exist, by the plural of their type; found ones are added.

    `secrets` are texts that no answer may have in it.
    """

    url: str
    token: str
    examples: int
    seed: int
    rows: dict[str, list[str]]
    secrets: Iterable[str]
    failures: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    operations: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def run(self) -> None:
        """Blocks until it is done; the findings are in `failures`."""
        self._random = random.Random(self.seed)
        schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json", config=self._config())
        self._conformance = Conformance(schema.raw_schema)
        with self._hooks():
            for event in from_schema(schema).execute():
                if isinstance(event, events.ScenarioFinished):
                    self._note(event)
                elif isinstance(event, events.NonFatalError):
                    self.failures.append(f"{event.label}: {event.info.format()}")
                elif isinstance(event, events.FatalError):
                    raise event.exception

    @property
    def cases(self) -> int:
        return sum(self.statuses.values())

    def _config(self) -> SchemathesisConfig:
        return SchemathesisConfig.from_dict(
            {
                "seed": self.seed,
                "headers": {"Authorization": f"Bearer {self.token}"},
                "request-timeout": 15,
                "continue-on-failure": True,
                "cache": {"enabled": False},
                "output": {"sanitization": {"enabled": False}},
                "generation": {
                    "max-examples": self.examples,
                    "deterministic": True,
                    "database": "none",
                },
                "phases": {"stateful": {"enabled": False}},
                "checks": {
                    # What is valid and refused all the same is looked at more closely below.
                    "positive_data_acceptance": {"enabled": False},
                    "negative_data_rejection": {"expected-statuses": REFUSALS},
                },
                "operations": [
                    # A stream ends only when its reader goes: look at its beginning.
                    {"include-path": "/v1/events", "request-timeout": 0.2, "generation": {"max-examples": 3}},
                ],
            }
        )  # fmt: skip

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        @schemathesis.hook
        def before_call(context: HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
            self._prepare(case)

        @schemathesis.hook
        def after_call(context: HookContext, case: AnyCase, response: Response) -> None:
            self._look(case, response)

        try:
            yield
        finally:
            schemathesis.hook.__globals__["GLOBAL_HOOK_DISPATCHER"].unregister_all()

    # -- requests ---------------------------------------------------------------------------

    def _prepare(self, case: AnyCase) -> None:
        """Let valid requests get somewhere: rows that exist, any version, keys used once."""
        if _mode(case) is not GenerationMode.POSITIVE:
            return  # whatever is changed could make it valid by accident
        headers: Any = case.headers or {}
        if "Idempotency-Key" in headers and self._often():
            headers["Idempotency-Key"] = str(uuid.UUID(int=self._random.getrandbits(128)))
        if "If-Match" in headers and self._often():
            headers["If-Match"] = "*"
        parameters: Any = case.path_parameters or {}
        addressed = case.operation.path.removeprefix("/v1/").partition("/")[0]
        for name, plural in (("id", addressed), ("emoji", "emoji")):
            if name in parameters and self.rows.get(plural) and self._often():
                parameters[name] = self._random.choice(self.rows[plural])
        if isinstance(case.body, dict):
            self._refer(case.body)

    def _often(self) -> bool:
        return self._random.random() < _EXISTING_SHARE

    def _refer(self, body: dict[str, Any]) -> None:
        """Refer to rows that exist, wherever a body refers to a row."""
        mutations = body.get("mutations")
        for mutation in mutations if isinstance(mutations, list) else ():
            if isinstance(mutation, dict):
                if mutation.get("op") == "create":
                    mutation.pop("id", None)  # must have been made lately
                if isinstance(mutation.get("values"), dict):
                    self._refer(mutation["values"])
        for name, plural in (("topic_id", "topics"), ("post_id", "posts"), ("reply_to", "posts")):
            if isinstance(body.get(name), str) and self.rows.get(plural) and self._often():
                body[name] = self._random.choice(self.rows[plural])

    # -- answers ----------------------------------------------------------------------------

    def _look(self, case: AnyCase, response: Response) -> None:
        self.statuses[response.status_code] += 1
        mode = _mode(case)
        self.modes[mode.value if mode is not None else "other"] += 1
        self.operations[case.operation.label][response.status_code] += 1
        found = _as_httpx(response)
        text = response.content.decode("utf-8", errors="replace")
        said = f"{case.method} {response.request.url} → {response.status_code}"
        for secret in self.secrets:
            if secret in text or any(secret in str(v) for v in response.headers.values()):
                self.failures.append(f"{said}: {secret!r} is in the answer: {text[:300]}")
        if response.stream_cut_short or found.headers.get("content-type", "").startswith("text/e"):
            return
        try:
            self._conformance.check(found)
        except NotAsDescribed as error:
            self.failures.append(f"{case.operation.label}: {error}")
        if response.status_code in (200, 201, 202):
            self._remember(case.operation.path, found)
        if mode is GenerationMode.POSITIVE and response.status_code in (400, 412, 422, 428):
            self._must_be_unforeseeable(said, found.json())

    def _must_be_unforeseeable(self, said: str, problem: Mapping[str, Any]) -> None:
        if problem["code"] in VALID_AND_REFUSED:
            return
        codes = {error["code"] for error in problem.get("errors", ())}
        if not codes or not codes <= NO_SCHEMA_SAYS:
            self.failures.append(f"{said}, though it is valid by the schema: {problem}")

    def _remember(self, path: str, answer: httpx2.Response) -> None:
        """The ids of new rows, to come back to them."""
        plural = path.split("/")[-1]
        body = answer.json() if answer.request.method == "POST" else None
        if isinstance(body, dict) and plural in self.rows and isinstance(body.get("id"), str):
            self.rows[plural].append(body["id"])

    def _note(self, event: events.ScenarioFinished) -> None:
        for case_id, checks in event.recorder.checks.items():
            for check in checks:
                failure = check.failure_info
                if failure is not None:
                    shown = failure.failure
                    if "positive test case" in shown.message:
                        continue  # a valid request, taken for an invalid one since its id was set
                    self.failures.append(
                        f"{event.recorder.label}: {shown.title}: {shown.message}: "
                        f"{failure.code_sample} ({case_id})"
                    )


def _mode(case: AnyCase) -> GenerationMode | None:
    return case.meta.generation.mode if case.meta is not None else None


def _as_httpx(response: Response) -> httpx2.Response:
    request = response.request
    return httpx2.Response(
        response.status_code,
        headers=[(name, value) for name, values in response.headers.items() for value in values],
        content=response.content,
        request=httpx2.Request(str(request.method), str(request.url)),
    )
