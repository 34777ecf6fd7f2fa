"""The measurements by name, in the order of the report."""

import importlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.bench.result import Result
from tests.bench.rig import Bench

Benchmark = Callable[[Bench], Awaitable[Result]]


class Measure(NamedTuple):
    """What is measured: where its function is, in a few words, and for someone who never heard of it."""

    function: str
    title: str
    about: str


BENCHMARKS: dict[str, Measure] = {
    "D1": Measure(
        "tests.bench.drains:against_sink",
        "drain creates ÷ tuned JDBC sink",
        "How fast a writer brings posts that wait in Kafka into PostgreSQL, beside the usual way to do "
        "that without writing a program: Kafka Connect with the Debezium JDBC sink, tuned. More is better.",
    ),
    "D2": Measure(
        "tests.bench.drains:against_copy",
        "drain creates ÷ COPY of the same rows",
        "The same, beside the most that PostgreSQL takes over one connection: the rows of posts alone, "
        "ready in memory, by COPY. More is better; 1 cannot be reached by anything that does more.",
    ),
    "D3": Measure(
        "tests.bench.drains:against_plain",
        "drain creates ÷ a transaction a command",
        "The same, beside the consumer that one writes first: a transaction for each command. "
        "FastStream in batches and Celery on Redis stand beside it. More is better.",
    ),
    "D4": Measure(
        "tests.bench.drains:against_creates",
        "mixed drain ÷ drain of creates",
        "What a forum's mixture of posts, topics, edits, deletions and reactions on the same few topics "
        "costs, beside posts alone. More is better.",
    ),
    "D5": Measure(
        "tests.bench.drains:with_bad_ones",
        "mixed drain with 1 % bad ÷ without",
        "What it costs the others when one command in a hundred is refused, forged or no command at "
        "all. More is better.",
    ),
    "D6": Measure(
        "tests.bench.backlog:growing",
        "backlog: rate of the last tenth ÷ the first",
        "Whether a writer gets slower, or larger, the longer it drains. 1 is a steady pace.",
    ),
    "A1": Measure(
        "tests.bench.accept:against_noop",
        "accept ÷ no-op endpoint",
        "How many posts one API process accepts (checked, laid over the pages, confirmed by Kafka), "
        "beside an endpoint that checks the token and the text and does nothing. More is better; 1 "
        "would mean that accepting costs nothing.",
    ),
    "A2": Measure(
        "tests.bench.accept:against_insert",
        "accept ÷ synchronous INSERT endpoint",
        "The same, beside an endpoint that inserts the post into PostgreSQL before it answers: what a "
        "site does without Afterwrite. More is better.",
    ),
    "A3": Measure(
        "tests.bench.accept:alone",
        "accept at 1 connection ÷ bare Redis + Kafka",
        "How long a single post waits beyond the no-op endpoint, in units of the least that its promises "
        "need: one round trip to Redis and one confirmation by Kafka. Less is better.",
    ),
    "A4": Measure(
        "tests.bench.outage:standstill",
        "accept while PostgreSQL stands still",
        "Whether users notice that PostgreSQL hangs: the slowest hundredth of the answers with and "
        "without a standstill. Less is better, 1 is not noticing. The synchronous endpoint beside it.",
    ),
    "A5": Measure(
        "tests.bench.spike:ten_times",
        "a spike of ten times the sustained rate",
        "Ten times more posts than a slow PostgreSQL takes: is everybody answered in time, and is "
        "everything there in the end? p99 as a share of the deadline; less is better.",
    ),
    "R1": Measure(
        "tests.bench.reads:nothing_pending",
        "page of posts ÷ a page by hand",
        "How long a page of 50 posts takes, beside a page that was written by hand for its table. Less "
        "is better.",
    ),
    "R2": Measure(
        "tests.bench.reads:some_pending",
        "page with 50 pending ÷ a page by hand",
        "The same page for a reader of whom 50 posts are pending, which are shown among the saved ones. "
        "Less is better.",
    ),
    "E1": Measure(
        "tests.bench.latency:until_saved",
        "202 → saved ÷ synchronous INSERT",
        "How long it takes from the answer until the author's page is told that his post is in "
        "PostgreSQL, beside an endpoint that inserts it at once. Less is better.",
    ),
    "M1": Measure(
        "tests.bench.memory:bytes_a_command",
        "bytes of a command ÷ its payload",
        "What a pending command takes in Redis's memory and on Kafka's disk, for each byte of its JSON. "
        "Less is better.",
    ),
    "S1": Measure(
        "tests.bench.scaling:lanes_and_processes",
        "scaling with lanes and processes",
        "What more lanes with as many writers, and more API processes, bring on the cores of this "
        "machine, and by a model that is checked against these points on larger ones.",
    ),
    "T1": Measure(
        "tests.bench.takeover:killed",
        "killed writer → saved by its standby",
        "How long nothing is saved after a writer was killed (SIGKILL) while a standby runs: seconds "
        "until the next command is in PostgreSQL. Less is better.",
    ),
}

GROUPS: dict[str, str] = {
    "D": "Draining: from Kafka into PostgreSQL",
    "A": "Accepting: from the request to the 202",
    "R": "Reading",
    "E": "Until it is saved",
    "M": "Bytes",
    "S": "More of them",
    "T": "Taking over",
}
"""Headings of the report, by the first letter of a measurement."""


def load(name: str) -> Benchmark:
    """The function of a measurement. Only its module is imported."""
    module, _, attribute = BENCHMARKS[name].function.partition(":")
    found: Benchmark = getattr(importlib.import_module(module), attribute)
    return found
