"""Errors that users see.

Every message names the subject, the offending value and the remedy. The command line
prints them without a traceback; anything else that is raised is a bug in Treadle.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence


class TreadleError(Exception):
    """A failure that is explained in one message; the job failed (exit status 1)."""


class RequestError(TreadleError):
    """The request cannot be served as written: a spec, option or input is wrong (exit status 2)."""


class UnsupportedModel(RequestError):
    """A trained model has no form as a compiled forest; the library's own explainer may still serve it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """Why, without the model's name and the remedy."""


class DataError(TreadleError):
    """The data do not allow what was asked for: a corrupt file, one class only, an unseen category."""


class ContractBroken(DataError):
    """The input breaks its contract; `verdicts` has the outcome of every expectation that was looked at."""

    def __init__(self, message: str, verdicts: Sequence[Mapping[str, object]] = ()) -> None:
        super().__init__(message)
        self.verdicts = verdicts


class StorageError(TreadleError):
    """Writing or reading artifacts failed: a full disk, a missing permission."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest of `choices`, or '' when none is near."""
    by_folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean '{shortened(by_folded[near[0]])}'?" if near else ""


def shortened(name: str) -> str:
    """A name of at most 80 characters, so that a message stays readable."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def listed(names: Iterable[object], limit: int = 12) -> str:
    """Names for a message: 'a, b, c' or, past `limit`, 'a, b, c and 40 more'."""
    texts = [shortened(str(name)) for name in names]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


def column_not_found(column: str, where: str, columns: Iterable[str]) -> RequestError:
    """The one spelling of the most frequent mistake."""
    names = list(columns)
    near = did_you_mean(column, names)
    return RequestError(f"Column '{shortened(column)}' was not found in {where}. Columns: [{listed(names)}].{near}")


def unreachable(error: BaseException, place: str = "An object store") -> StorageError | None:
    """What botocore says of a store that it cannot ask (no connection, no credentials); None for any other error."""
    if type(error).__module__.partition(".")[0] not in ("botocore", "aiobotocore"):
        return None
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return StorageError(
        f"{place} cannot be reached: {said}. Look at the credentials and the endpoint "
        "(Object stores, in docs/artifacts.md)."
    )
