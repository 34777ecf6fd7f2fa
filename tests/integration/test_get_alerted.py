"""docs/how-to/get-alerted.md holds: its verification accepts a real alert and no other; its commands."""

import dataclasses
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from schema.settings import Settings
from schema.topics import topics
from tests.alerting import (
    SECRET,
    Request,
    alert,
    answers,
    channels,
    mail_server,
    serving,
    settings,
    until,
)
from tests.installation import Installation
from writer.alerting.channels import Channels

pytestmark = [pytest.mark.integration, pytest.mark.once]

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "how-to" / "get-alerted.md").read_text(encoding="utf-8")


def verification() -> Any:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["alert_of"]


def headers_of(request: Request) -> dict[str, str]:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {name: request.header(name) for name in names}


async def test_the_pages_verification_accepts_what_we_sent_and_nothing_else() -> None:
    alert_of = verification()
    async with (
        serving(answers(200)) as server,
        channels(f"json://127.0.0.1:{server.port}/") as made,
    ):
        sent = dataclasses.replace(alert(), title="Größe · 大きさ")
        made.send(sent)
        await until(lambda: made.states()[0].sent == 1)
    [request] = server.requests
    headers = headers_of(request)
    assert alert_of(headers, request.body, SECRET) == sent.to_json()
    for forged in (
        (headers, request.body.replace(b"critical", b"info"), SECRET),
        (headers | {"webhook-id": "another"}, request.body, SECRET),
        (
            headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
            request.body,
            SECRET,
        ),
        (headers, request.body, "another " * 8),
        (headers | {"webhook-signature": "v1,"}, request.body, SECRET),
    ):
        with pytest.raises(ValueError, match="not signed"):
            alert_of(*forged)
    with pytest.raises(ValueError, match="too old"):
        alert_of(headers | {"webhook-timestamp": "1700000000"}, request.body, SECRET)


async def test_every_url_of_the_page_is_taken() -> None:
    examples = re.findall(r"^((?:forms|slack|matrixs|ntfys)://\S+)$", PAGE, re.MULTILINE)
    examples += re.findall(r"`(mailtos://ops%40\S+)`", PAGE)
    examples += re.findall(r"AFTERWRITE_ALERT_URLS='(.*?)'", PAGE)
    tokens = {"TOKEN_A": "T1JJ3T3L2", "TOKEN_B": "A1BRTD4JD", "TOKEN_C": "TIiajkdnlazkcOXrIdevi7FQ"}
    for name, token in tokens.items():
        examples = [example.replace(name, token) for example in examples]
    assert len(examples) == 6
    assert len(Channels.of(settings(*examples)).states()) == 7


async def afterwrite(*words: str, **environ: str) -> tuple[int, str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AFTERWRITE_")}
    process = await create_subprocess_exec(
        sys.executable, "-m", "deploy.cli", *words,
        cwd=ROOT, stdout=PIPE, stderr=PIPE, env=clean | {"AFTERWRITE_KAFKA_BOOTSTRAP": "127.0.0.1:1"} | environ,
    )  # fmt: skip
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


async def test_the_channels_are_tried_and_the_failing_ones_named() -> None:
    async with serving(answers(200)) as good, serving(answers(500)) as bad, mail_server() as mails:
        taken = (
            f"json://127.0.0.1:{good.port}/s3cret,"
            f"mailto://127.0.0.1:{mails.port}?to=ops@example.org"
        )
        code, said, _ = await afterwrite("alerts", "test", AFTERWRITE_ALERT_URLS=taken)
        assert (code, said.splitlines()[-1]) == (0, "All channels took it.")
        assert good.bodies()[0]["phase"] == "test"
        assert mails.received[0]["subject"] == "[afterwrite] Test: alerts arrive here"
        code, said, complained = await afterwrite(
            "alerts", "test", "--json",
            AFTERWRITE_ALERT_URLS=f"{taken},json://x:s3cret@127.0.0.1:{bad.port}/s3cret",
        )  # fmt: skip
        assert code == 1
        report = json.loads(said)
        assert [(c["name"], c["delivered"], c["error"]) for c in report["channels"]] == [
            ("json-1", True, None),
            ("mailto-2", True, None),
            ("json-3", False, "HTTP 500"),
        ]
        assert report["delivered"] is False
        assert "s3cret" not in said + complained


@pytest.mark.parametrize("urls", ["", "json://127.0.0.1:9/,s3cret://s3cret"])
async def test_what_cannot_be_tried_is_wrong_usage(urls: str) -> None:
    code, said, complained = await afterwrite("alerts", "test", AFTERWRITE_ALERT_URLS=urls)
    assert (code, said) == (2, "")
    assert "AFTERWRITE_ALERT_URLS" in complained
    assert "→" in complained
    assert "Traceback" not in complained


async def test_a_notifier_with_a_channel_that_cannot_be_used_does_not_start() -> None:
    code, _, complained = await afterwrite(
        "serve", "notifier",
        AFTERWRITE_ALERT_URLS="json://127.0.0.1:9/,s3cret://s3cret",
        AFTERWRITE_SIGNING_KEYS=f"k1:{SECRET}",
        AFTERWRITE_FRONTEND_DATABASE_URL="postgresql://127.0.0.1:9/",
    )  # fmt: skip
    assert code == 2
    assert "AFTERWRITE_ALERT_URLS, number 2 (s3cret://)" in complained
    assert "s3cret://s3" not in complained
    assert "Traceback" not in complained


async def test_alerts_are_listed_and_those_that_last(installation: Installation) -> None:
    bootstrap = installation.services.kafka_bootstrap
    topic = topics(Settings(prefix=installation.name)).alerts.name
    environ = {
        "AFTERWRITE_KAFKA_BOOTSTRAP": bootstrap,
        "AFTERWRITE_PREFIX": installation.name,
    }
    told = [
        alert("opened", "database_down"),
        alert("opened", "redis_down"),
        alert("reminder", "database_down"),
        alert("closed", "redis_down"),
        alert("summary", "rejections"),
    ]
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=f"{installation.name}.test"
    )
    await producer.start()
    try:
        async with producer.transaction():  # its mark is the last offset, and is no alert
            await producer.send_and_wait(topic, b"no alert")
            for one in told:
                await producer.send_and_wait(topic, json.dumps(one.to_json()).encode())
    finally:
        await producer.stop()
    code, said, complained = await afterwrite("alerts", "list", "--json", **environ)
    assert (code, complained) == (0, "")
    assert json.loads(said) == [one.to_json() for one in told]
    _, said, _ = await afterwrite("alerts", "list", "--json", "--limit", "2", **environ)
    assert json.loads(said) == [one.to_json() for one in told[-2:]]
    _, said, _ = await afterwrite("alerts", "list", "--open", **environ)
    assert said == (
        "2026-11-21 12:00:00Z  reminder  critical  database_down: PostgreSQL is away "
        "(since 2026-11-21 12:00Z, 3 waiting)\n"
    )
    code, said, complained = await afterwrite("alerts", "list")
    assert (code, said) == (3, "")
    assert "Kafka" in complained
