"""What a problem looks like, as JSON Schema."""

from typing import Final

from schema.json_schema import UUID, described, named
from schema.outcomes import CODES, Problem

PROBLEM: Final = named(
    "Problem",
    {
        "type": "object",
        "description": "Why something failed (RFC 9457). Never repeats what was sent.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {
                "type": "string",
                "format": "uri",
                "description": "Names the code, as a URI.",
            },
            "title": {"type": "string", "description": "What the code means."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is the matter here."},
            "code": {
                "type": "string",
                "enum": sorted(CODES),
                "description": "For programs: decide by it.",
            },
            "errors": {
                "type": "array",
                "description": "What is wrong in which place.",
                "items": {
                    "type": "object",
                    "required": ["pointer", "code", "detail"],
                    "properties": {
                        "pointer": {
                            "type": "string",
                            "description": "JSON Pointer into the body, or `?name` of a parameter.",
                        },
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                },
            },
            "trace_id": {
                "type": "string",
                "pattern": "^[0-9a-f]{32}$",
                "description": "Of the request: by it the log tells what happened.",
            },
            "command": described(UUID, "The command that was rejected."),
            "current_version": {
                "type": "integer",
                "minimum": 1,
                "description": "Of a version conflict: what the row has now.",
            },
            "sqlstate": {
                "type": "string",
                "pattern": "^[0-9A-Z]{5}$",
                "description": "PostgreSQL's, if it was the database that refused.",
            },
            "constraint": {
                "type": "string",
                "description": "The constraint of the database that refused.",
            },
        },
        "examples": [Problem("not_found", "There is no such row.").to_json()],
    },
)
