"""Findings of an audit, and the report that they make up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pandas as pd

from graphmeta.errors import counted


class Verdict(StrEnum):
    """What a finding means for published figures.

    ``ok``: nothing to report; ``note``: a property of the data that results depend on; ``warning``: figures may be
    optimistic, or something could not be checked; ``fault``: labels or test data leak, or labels are wrong.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One check: what was found, in one sentence, with its numbers.

    Args:
        about: split, model, training or metric.
    """

    about: str
    check: str
    verdict: Verdict
    text: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """The report of :func:`~graphmeta.evaluation.audit.audit`; prints as text.

    ``series`` holds the numbers of the figures, by name.
    """

    findings: tuple[Finding, ...]
    series: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are faults."""
        return tuple(one for one in self.findings if one.verdict is Verdict.FAULT)

    def __getitem__(self, check: str) -> Finding:
        """The finding of a check by its name."""
        found = next((one for one in self.findings if one.check == check), None)
        if found is None:
            raise KeyError(f"no check {check!r}; there are {', '.join(one.check for one in self.findings)}")
        return found

    def headline(self) -> str:
        """The number of faults and warnings in one line."""
        number = {kind: sum(one.verdict is kind for one in self.findings) for kind in (Verdict.FAULT, Verdict.WARNING)}
        shown = ", ".join(counted(size, str(kind)) for kind, size in number.items())
        return f"{counted(len(self.findings), 'check')}: {shown}"

    def to_frame(self) -> pd.DataFrame:
        """One row per finding: about, check, verdict, text."""
        rows = [(one.about, one.check, str(one.verdict), one.text) for one in self.findings]
        return pd.DataFrame(rows, columns=["about", "check", "verdict", "text"])

    def document(self) -> dict[str, Any]:
        """The whole report as JSON values."""
        findings = [{**asdict(one), "verdict": str(one.verdict)} for one in self.findings]
        return {"ok": self.ok, "headline": self.headline(), "findings": findings, "series": self.series}

    def __str__(self) -> str:
        lines = [self.headline()]
        for about in dict.fromkeys(one.about for one in self.findings):
            lines += ["", about]
            lines += [_line(one) for one in self.findings if one.about == about]
        return "\n".join(lines)


def _line(finding: Finding) -> str:
    return f"  {finding.verdict.upper():8}{finding.check}: {finding.text}"


def joined(reports: Iterable[Audit]) -> Audit:
    """One report of several."""
    reports = list(reports)
    series = {name: values for one in reports for name, values in one.series.items()}
    return Audit(tuple(found for one in reports for found in one.findings), series)


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.1234), percent(0.0), percent(0.00001)
    ('12.3 %', '0 %', '< 0.1 %')
    """
    if share == 0:
        return "0 %"
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
