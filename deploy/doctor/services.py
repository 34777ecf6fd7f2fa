"""Do the servers answer, with the rights and settings we were given?"""

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deploy.doctor import Finding
from deploy.embedded import probes
from deploy.embedded.sources import POSTGRES_URLS

CONNECT_S = 5.0
LEAST_POSTGRES = 14


async def check_postgres(settings: Mapping[str, str]) -> list[Finding]:
    """Each role's URL that is set."""
    urls = {name: settings[name] for name in POSTGRES_URLS if settings.get(name)}
    return list(await asyncio.gather(*(_postgres(name, url) for name, url in urls.items())))


async def _postgres(name: str, url: str) -> Finding:
    subject = f"postgres ({name})"
    where = _without_secrets(url)
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        todo = "Is the server up, and are host, port, role and password right?"
        return Finding(subject, "bad", f"{where}: {_short(error)}", todo)
    try:
        major = connection.get_server_version().major
        version = await connection.fetchval("SHOW server_version")
        role = await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()
    text = f"PostgreSQL {version} at {where}, as {role}"
    if major < LEAST_POSTGRES:
        return Finding(subject, "bad", text, f"Use PostgreSQL {LEAST_POSTGRES} or later.")
    return Finding(subject, "ok", text)


async def check_redis(settings: Mapping[str, str]) -> list[Finding]:
    """It answers, and evicts nothing."""
    url = settings.get("AFTERWRITE_REDIS_URL")
    if not url:
        return []
    where = _without_secrets(url)
    try:
        async with Redis.from_url(
            url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S
        ) as client:
            info = await client.info()
    except (RedisError, OSError, ValueError) as error:
        todo = "Is the server up, and are host, port and password right?"
        return [Finding("redis", "bad", f"{where}: {_short(error)}", todo)]
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version", "?"))
    found = [Finding("redis", "ok", f"{product} {version} at {where}")]
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: pending changes may vanish from view"
        found.append(Finding("redis", "warning", text, "Set maxmemory-policy to noeviction."))
    return found


async def check_kafka(settings: Mapping[str, str]) -> list[Finding]:
    """Brokers answer a request for the cluster's metadata."""
    bootstrap = settings.get("AFTERWRITE_KAFKA_BOOTSTRAP")
    if not bootstrap:
        return []
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, request_timeout_ms=int(CONNECT_S * 1000)
    )
    try:
        async with asyncio.timeout(2 * CONNECT_S):
            await admin.start()
            cluster = await admin.describe_cluster()
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        todo = "Are the brokers up, and do they advertise an address that is reachable from here?"
        return [Finding("kafka", "bad", f"{bootstrap}: {_short(error)}", todo)]
    finally:
        await admin.close()
    return [Finding("kafka", "ok", f"{len(cluster['brokers'])} broker(s) by way of {bootstrap}")]


async def check_api(settings: Mapping[str, str]) -> list[Finding]:
    """The API says that it is ready."""
    url = settings.get("AFTERWRITE_URL")
    if not url:
        return []
    if await asyncio.to_thread(probes.http, f"{url}/readyz"):
        return [Finding("api", "ok", f"ready at {url}")]
    return [Finding("api", "bad", f"{url}/readyz does not say 200", "See `afterwrite logs api`.")]


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}{parts.path}"


def _short(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return json.dumps(text)[1:-1] or type(error).__name__
