"""Whether answers are as the API description says: status, media type, headers, schema.

Stricter than a client may be: an object has no members, and an answer no headers, that are not
described. So a description that lags behind the code is found by whatever test meets it first.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import jsonschema_rs

HTTP_OWN = {"content-type", "content-length", "date", "connection", "transfer-encoding", "vary"}
"""Headers that HTTP itself has in any answer."""
NOT_DESCRIBED = {404, 405, 413, 415, 431, 400, 408, 500, 503}
"""What a request may be answered with for which there is no operation."""


class NotAsDescribed(AssertionError):
    """An answer that contradicts the description."""


class Conformance:
    """Checks answers against an OpenAPI document. `checked` counts them by operation and status."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._components = {
            "components": {"schemas": closed(document["components"]["schemas"])},
        }
        self._paths = [
            (re.compile("^" + re.sub(r"\{\w+\}", "[^/]+", path) + "$"), operations)
            for path, operations in document["paths"].items()
        ]
        self._validators: dict[int, jsonschema_rs.Draft202012Validator] = {}
        self.checked: dict[tuple[str, int], int] = {}

    async def hook(self, response: httpx2.Response) -> None:
        """For `event_hooks` of a client."""
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        await response.aread()
        self.check(response)

    def check(self, response: httpx2.Response) -> None:
        """Raises `NotAsDescribed`."""
        request = response.request
        operation = self._operation(request.method, urlsplit(str(request.url)).path)
        said = f"{request.method} {unquote(str(request.url))} answered {response.status_code}"
        if operation is None:
            _claim(response.status_code in NOT_DESCRIBED, f"{said}, which no operation has")
            return
        answers = operation["responses"]
        _claim(str(response.status_code) in answers, f"{said}, which is not described")
        found = self._resolved(answers[str(response.status_code)])
        self._check_headers(response, found.get("headers", {}), said)
        self._check_body(response, found.get("content", {}), said)
        key = (operation["operationId"], response.status_code)
        self.checked[key] = self.checked.get(key, 0) + 1

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        method = "get" if method == "HEAD" else method.lower()
        for pattern, operations in self._paths:
            if pattern.match(path) and method in operations:
                found: Mapping[str, Any] = operations[method]
                return found
        return None

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in part:
            _, _, section, name = part["$ref"].split("/")
            part = self._document["components"][section][name]
        return part

    def _check_headers(
        self, response: httpx2.Response, described: Mapping[str, Any], said: str
    ) -> None:
        known = {name.lower(): self._resolved(header) for name, header in described.items()}
        for name, header in known.items():
            if name not in response.headers:
                _claim(not header.get("required"), f"{said} without the header {name}")
                continue
            value: Any = response.headers[name]
            if header["schema"]["type"] == "integer":
                value = int(value)
            self._validate(value, header["schema"], f"{said} with {name}: {value}")
        for name in response.headers:
            if name.startswith("access-control-"):
                continue  # the browser's own affair
            _claim(name in known or name in HTTP_OWN, f"{said} with {name}, which is not described")

    def _check_body(
        self, response: httpx2.Response, described: Mapping[str, Any], said: str
    ) -> None:
        media_type = response.headers.get("content-type", "")
        if response.request.method == "HEAD":
            return
        _claim(media_type in described, f"{said} as {media_type!r}, not as {list(described)}")
        if "json" in media_type:
            self._validate(response.json(), described[media_type]["schema"], said)

    def _validate(self, value: Any, schema: Mapping[str, Any], said: str) -> None:
        validator = self._validators.get(id(schema))  # a part of the document, which stays
        if validator is None:
            whole = {"allOf": [closed(schema)], **self._components}
            validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
            self._validators[id(schema)] = validator
        if validator.is_valid(value):
            return
        errors = [
            f"{'/'.join(map(str, error.instance_path))}: {error.message}"
            for error in validator.iter_errors(value)
        ]
        raise NotAsDescribed(f"{said}, but {'; '.join(errors[:3])}: {json.dumps(value)[:600]}")


def _claim(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotAsDescribed(otherwise)


def closed(schema: Any) -> Any:
    """The schema without room for members that it does not name."""
    if isinstance(schema, Mapping):
        found = {name: closed(part) for name, part in schema.items()}
        if isinstance(schema.get("properties"), Mapping):
            found.setdefault("additionalProperties", False)
        return found
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    return schema
