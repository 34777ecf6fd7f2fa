"""Kafka as our child: one node that is broker and controller (KRaft), on 127.0.0.1 only.

With Java 25 the first orderly stop also writes an AOT cache (JEP 514) beside the jars, which makes
later starts about twice as fast. It holds classes only; it is made for one Java and one set of jars,
and its name says which.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Literal

from deploy.embedded import probes
from deploy.embedded.files import write_atomically
from deploy.embedded.home import Home
from deploy.embedded.jars import Jars, kafka_version
from deploy.embedded.process import Launch
from deploy.embedded.sources import Binary
from deploy.errors import Trouble

SETTINGS = Path(__file__).parent.parent / "kafka" / "server.properties"
LOGGING = Path(__file__).parent.parent / "kafka" / "log4j2.properties"
JVM = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
AOT_SINCE_JAVA = 25
AOT_KEPT = 3
"""Caches kept for other versions of Java or Kafka; one has about 65 MB."""
STORAGE_TOOL, BROKER = "kafka.tools.StorageTool", "kafka.Kafka"


class Kafka:
    """The embedded broker of one home. Its jars must be there before `prepare()`."""

    name: Literal["kafka"] = "kafka"

    def __init__(self, home: Home, java: Binary, jars: Jars) -> None:
        self.home = home
        self.java = java
        self.jars = jars
        self.port = home.port(self.name)
        self.controller_port = home.port("kafka-controller")
        self.folder = home.folder(self.name)
        self.version = kafka_version(jars.jars)
        self.may_train = True
        """Whether a run may make the AOT cache, which makes its stop some seconds longer."""
        self.training = False

    def describe(self) -> str:
        return f"Kafka {self.version} on {self.java.describe()}"

    def prepare(self) -> None:
        """Writes the settings and formats the log folder at the first start."""
        minor = "Kafka " + ".".join(self.version.split(".")[:2])
        self.home.stamp(
            self.name,
            minor,
            "Use the Afterwrite that made it, or set AFTERWRITE_HOME to a new folder.",
        )
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        self.home.folder("kafka/tmp")
        self._adopt_aot_cache()
        write_atomically(self.folder / "server.properties", self._settings())
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def _settings(self) -> str:
        controller = f"127.0.0.1:{self.controller_port}"
        own = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.quorum.voters": f"1@{controller}",
            # A properties file takes a backslash for an escape.
            "log.dirs": str(self.folder / "data").replace("\\", "\\\\"),
        }
        lines = "".join(f"{key}={value}\n" for key, value in own.items())
        return SETTINGS.read_text(encoding="utf-8") + lines

    def _format(self) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):  # the tool would take it for an option
            cluster_id = "A" + cluster_id[1:]
        properties = str(self.folder / "server.properties")
        command = self._java([STORAGE_TOOL, "format", "-t", cluster_id, "-c", properties])
        log = self.home.logs / "kafka-format.log"
        with log.open("wb") as output:
            done = subprocess.run(
                Launch(tuple(command), self._env()).command(),
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise Trouble(
                f"Kafka's folder {self.folder} could not be formatted ({done.returncode}).",
                f"See {log}.",
            )

    def _java(self, words: list[str], extra: tuple[str, ...] = ()) -> list[str]:
        class_path = os.pathsep.join(map(str, self.jars.class_path()))
        properties = [f"-Dlog4j2.configurationFile={LOGGING}"]
        properties += [f"-Djava.io.tmpdir={self.folder / 'tmp'}"]
        return [str(self.java.path), *JVM, *extra, *properties, "-cp", class_path, *words]

    def _env(self) -> dict[str, str]:
        """Ours without the variables by which a shell's settings would reach the JVM."""
        unwanted = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
        return {key: value for key, value in os.environ.items() if key not in unwanted}

    def launch(self) -> Launch:
        extra = self._aot()
        return Launch(
            tuple(self._java([BROKER, str(self.folder / "server.properties")], extra)),
            self._env(),
            # By the time the cache is written the broker has long stopped: it is safe to cut short.
            stop_s=12 if self.training else 60,
            # A JVM that ends while it trains starts another one, which nothing would end.
            orphan_signal=signal.SIGKILL if self.training else None,
        )

    # -- the AOT cache ----------------------------------------------------------------------

    def _aot_cache(self) -> Path:
        jars = "".join(jar.sha256 for jar in self.jars.jars)
        release = self.java.path.resolve().parent.parent / "release"  # names the build exactly
        build = release.read_text(encoding="utf-8") if release.exists() else str(self.java.path)
        key = hashlib.sha256(f"{self.java.version}{build}{JVM}{jars}".encode())
        return self.jars.folder / f"kafka-{key.hexdigest()[:16]}.aot"

    def _aot(self) -> tuple[str, ...]:
        """The JVM options to use the cache, or to make it. Sets `training` in the latter case."""
        cache = self._aot_cache()
        self.training = False
        if self.java.version[0] < AOT_SINCE_JAVA:
            return ()
        if cache.exists():
            return (f"-XX:AOTCache={cache}",)
        self.training = self.may_train and os.access(cache.parent, os.W_OK)
        return (f"-XX:AOTCacheOutput={self.folder / 'training.aot'}",) if self.training else ()

    def _adopt_aot_cache(self) -> None:
        """Puts the cache written by the last stop beside the jars, for all homes."""
        trained = self.folder / "training.aot"
        if not trained.exists():
            return
        cache = self._aot_cache()
        if not cache.exists() and self._usable(trained):
            arriving = cache.with_suffix(f".{os.getpid()}.new")
            shutil.copyfile(trained, arriving)
            arriving.replace(cache)
            by_age = sorted(cache.parent.glob("kafka-*.aot"), key=lambda file: file.stat().st_mtime)
            for old in by_age[:-AOT_KEPT]:
                old.unlink(missing_ok=True)
        trained.unlink()

    def _usable(self, cache: Path) -> bool:
        """Whether Java takes it: a stop that was cut short leaves half a file."""
        class_path = os.pathsep.join(map(str, self.jars.class_path()))
        options = [*JVM, "-XX:AOTMode=on", f"-XX:AOTCache={cache}", "-cp", class_path, "-version"]
        trial = [str(self.java.path), *options]
        return (
            subprocess.run(trial, env=self._env(), capture_output=True, check=False).returncode == 0
        )

    def ready(self) -> bool:
        return probes.kafka(self.port)

    def finish(self) -> None:
        """Nothing to be done: topics are made by the migrations."""

    def environment(self) -> dict[str, str]:
        return {"AFTERWRITE_KAFKA_BOOTSTRAP": f"127.0.0.1:{self.port}"}
