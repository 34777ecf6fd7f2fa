"""Structs: objects that nothing changes once they are made, and that are cheap to make.

To the type checker `@struct(frozen=True)` is a frozen dataclass, so that whoever assigns to a field is told.
At run time it is one with slots and without the guard: the guard stores each field by a call of
`object.__setattr__`, which took 3 µs of each command that the writer reads.
"""

from typing import TYPE_CHECKING

__all__ = ["struct"]

if TYPE_CHECKING:
    from dataclasses import dataclass as struct
else:
    from dataclasses import dataclass

    def struct(*, frozen):
        return dataclass(slots=True, unsafe_hash=frozen)
