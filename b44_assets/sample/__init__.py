"""Synthetic Base44 exports with the truth about them, for trying the migration out and for benchmarks.

An export is made record by record from a seed, in the byte form of one of Base44's dialects, with every kind of trouble
that the migration knows planted at a given rate. What was planted is counted as it is planted, so that `truth.json`
says what must become of every record without a second implementation of the mapping rules.
"""

from __future__ import annotations

from b44_assets.sample.dialects import DIALECTS
from b44_assets.sample.writer import SampleReport, write_sample

__all__ = ["DIALECTS", "SampleReport", "write_sample"]
