"""Keys of age."""

from typing import Self

class Recipient:
    """The public half."""

    @classmethod
    def from_str(cls, v: str) -> Self: ...

class Identity:
    """The secret half."""

    @classmethod
    def generate(cls) -> Self: ...
    @classmethod
    def from_str(cls, v: str) -> Self: ...
    def to_public(self) -> Recipient: ...
