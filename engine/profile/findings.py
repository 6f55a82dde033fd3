"""What is odd in a table, each with its numbers: what costs a data engineer time when it is noticed late."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from treadle.engine.profile.columns import Column
from treadle.engine.profile.document import ColumnProfile, Finding, FindingKind, NumberProfile, Profile
from treadle.engine.profile.texts import DATE_FORMATS, forms_of
from treadle.errors import listed

TELLS_ALL = 0.99
"""A correlation or association from which a column counts as another name for what it goes with."""
NULLS_TELL = 0.9
"""Nulls by chance tell nothing, so that less of them is noticed."""
NEAR_UNIQUE = 0.9
"""Share of a text column's values that are distinct, from which it hardly repeats."""
ENOUGH = 100
"""Values from which a share says something."""
MOSTLY = 0.5
"""Share of texts of a form, from which the others are noticed; share of nulls that is noticed."""
FEW_KNOWN = 25
"""With fewer values than this, all may be on one side of a split."""
SKEWED = 2.0
"""Skewness of a target; that of an exponential distribution."""
RARE = 0.01
FAR = 20.0
"""A largest value so many times as far from the median as the 99 % quantile is a heavy tail."""
SENTINELS = (-99, -999, -9999, -99999, 99, 999, 9999, 99999, 999999)
NULL_WORDS = frozenset(
    {"?", "-", "--", ".", "n/a", "na", "nan", "nil", "none", "null", "unknown", "missing", "#n/a", "not available"}
)
LONG_GAP = 5.0
"""A gap of so many usual distances between days is noticed."""


def findings(profile: Profile, columns: Mapping[str, Column]) -> tuple[Finding, ...]:
    """All that is found in a profile, given the statistics that it was made from; by subject, then in the order of the
    columns."""
    found = [*_of_rows(profile), *_of_target(profile), *_equal(profile, columns)]
    for described in profile.columns:
        if described.rows:
            found += [*_of_column(described), *_of_text(described, columns[described.name])]
    return (*found, *_correlated(profile, found))


def _say(kind: FindingKind, message: str, *columns: str) -> Finding:
    return Finding(kind=kind, columns=columns, message=message)


def _share(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 or part == 0 else "under 0.1 %"


def _of_rows(profile: Profile) -> Iterator[Finding]:
    if profile.quarantined:
        yield _say("quarantined", f"{profile.quarantined:,} broken rows are left out of this profile")
    if profile.duplicate_rows:
        about = "about " if profile.duplicate_rows_error else ""
        share = _share(profile.duplicate_rows, profile.rows)
        yield _say(
            "duplicate_rows", f"{about}{profile.duplicate_rows:,} rows ({share}) equal an earlier row altogether"
        )


def _equal(profile: Profile, columns: Mapping[str, Column]) -> Iterator[Finding]:
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for column in profile.columns:
        if column.known and column.distinct > 1:
            alike[column.kind, columns[column.name].digest].append(column.name)
    for names in alike.values():
        for name in names[1:]:
            yield _say("equal", f"'{name}' equals '{names[0]}' in every row", name, names[0])


def _of_column(column: ColumnProfile) -> Iterator[Finding]:
    name, known = column.name, column.known
    if known == 0:
        yield _say("null", f"'{name}' is null in all {column.rows:,} rows", name)
        return
    if column.distinct == 1:
        value = repr(column.top[0].value) if column.top else "an infinite number"
        if column.nulls:
            yield _say("one_value_or_null", f"'{name}' is {value} or null ({_share(column.nulls, column.rows)})", name)
        else:
            yield _say("constant", f"'{name}' is {value} in all rows", name)
    elif known < FEW_KNOWN and column.nulls:
        yield _say("few_known", f"'{name}' has {known} values only, and is else null", name)
    elif column.null_fraction > MOSTLY:
        yield _say("null", f"'{name}' is null in {_share(column.nulls, column.rows)} of the rows", name)
    whole = column.kind in ("int", "text")
    if column.unique != "no" and not column.nulls and whole and known > 1:
        sure = "" if column.unique == "yes" else ", as far as a sample tells"
        yield _say("id", f"'{name}' names every row: no value is null or occurs twice{sure}", name)
    elif column.text is not None and known >= ENOUGH and column.distinct >= NEAR_UNIQUE * known > _dates(column)[1]:
        yield _say("near_unique", f"'{name}' has {column.distinct:,} distinct texts in {known:,} rows", name)
    if column.number is not None:
        yield from _of_number(column, column.number)
    gap = column.time.longest_gap if column.time else None
    if column.time is not None and gap is not None and column.time.days > FEW_KNOWN:
        usual = _days_between(column) / (column.time.days - 1)
        if gap.seconds / 86400 > max(LONG_GAP * usual, 2.0):
            yield _say("time_gap", f"'{name}' has no row between {gap.after} and {gap.before}", name)


def _days_between(column: ColumnProfile) -> float:
    import numpy as np

    assert column.time is not None
    return float((np.datetime64(column.time.last, "s") - np.datetime64(column.time.first, "s")).astype(int)) / 86400


def _of_number(column: ColumnProfile, number: NumberProfile) -> Iterator[Finding]:
    name = column.name
    if number.infinities:
        yield _say("infinite", f"'{name}' is infinite in {number.infinities:,} rows, which no model takes", name)
    counts = {top.value: top.count for top in column.top}
    quantiles = [number.quantiles[share] for share in ("0.01", "0.5", "0.99")]
    low, middle, high = quantiles
    if number.minimum is None or number.maximum is None or low is None or middle is None or high is None:
        return
    for sentinel in SENTINELS:
        rows = counts.get(sentinel, counts.get(float(sentinel), 0))
        negative = sentinel < 0 and number.minimum == sentinel and number.negatives == rows
        far = number.maximum == sentinel and sentinel > 0 and _next_below(column) * 2 < sentinel
        if rows > 1 and (negative or far) and column.distinct > 2:
            message = f"'{name}' is {sentinel} in {rows:,} rows, the only value there; is it a stand-in for null?"
            yield _say("sentinel", message, name)
            return
    for end, quantile, word in ((number.maximum, high, "largest"), (number.minimum, low, "smallest")):
        reach = abs(quantile - middle)
        if reach and abs(end - middle) > FAR * reach:
            times = abs(end - middle) / reach
            message = (
                f"'{name}' has a heavy tail: its {word} value, {end:,.6g}, is {times:,.0f} times as far from the "
                f"median as the {'99' if word == 'largest' else '1'} % quantile"
            )
            yield _say("heavy_tail", message, name)
            return


def _next_below(column: ColumnProfile) -> float:
    """The largest of the shown values below the maximum, and of the 95 % quantile where that is below it."""
    assert column.number is not None
    top = column.number.maximum or 0.0
    below = [float(t.value) for t in column.top if not isinstance(t.value, (str, bool)) and t.value < top]
    outer = column.number.quantiles["0.95"]
    return max([*below, outer if outer is not None and outer < top else 0.0])


def _of_text(column: ColumnProfile, statistics: Column) -> Iterator[Finding]:
    text, texts = column.text, statistics.texts
    if text is None or texts is None or column.known == 0:
        return
    name, known = column.name, column.known
    if text.empty + text.blank:
        rows = text.empty + text.blank
        yield _say("empty_texts", f"'{name}' is empty or blank in {rows:,} rows ({_share(rows, known)})", name)
    if text.padded:
        yield _say("padded", f"'{name}' has spaces at an end in {text.padded:,} rows; trim(...) takes them off", name)
    words = dict(zip(statistics.top.keys.tolist(), statistics.top.counts.tolist(), strict=True))
    levels = {texts.words[key]: count for key, count in words.items()}
    stand_ins = {word: n for word, n in levels.items() if word.strip().casefold() in NULL_WORDS}
    if stand_ins and len(stand_ins) < column.distinct:
        shown = listed(f"{word!r} ({n:,} rows)" for word, n in sorted(stand_ins.items(), key=lambda item: -item[1]))
        yield _say("null_words", f"'{name}' has {shown}, which may stand for null", name)
    if column.exact:
        yield from _case_levels(name, list(levels))
    yield from _of_forms(column, levels)


def _case_levels(name: str, levels: list[str]) -> Iterator[Finding]:
    folded: dict[str, list[str]] = defaultdict(list)
    for level in levels:
        folded[level.strip().casefold()].append(level)
    twice = sorted(sorted(group) for group in folded.values() if len(group) > 1)
    if twice:
        shown = listed((" and ".join(map(repr, group)) for group in twice), 3)
        yield _say("case_levels", f"'{name}' has values that differ in case or spaces only: {shown}", name)


def _of_forms(column: ColumnProfile, levels: Mapping[str, int]) -> Iterator[Finding]:
    """Numbers, truth values and dates that are kept as text, and what is among them that is none."""
    assert column.text is not None
    name, known, forms = column.name, column.known, column.text.forms
    numbers = forms.get("float", 0)
    if column.text.leading_zeros and numbers >= MOSTLY * known:
        rows = column.text.leading_zeros
        message = f"'{name}' has numbers with leading zeros in {rows:,} rows: codes, which a cast would change"
        yield _say("leading_zeros", message, name)
    elif numbers == known:
        kind = "int" if forms.get("int", 0) == known else "float"
        yield _say("numbers_as_text", f"'{name}' is text, and all its values are numbers ({kind})", name)
    elif numbers >= MOSTLY * known:
        yield _say("mixed_numbers", _mixed(column, levels, "float", numbers, "numbers"), name)
    elif forms.get("bool", 0) == known:
        yield _say("bools_as_text", f"'{name}' is text, and all its values are true or false", name)
    fitting, best = _dates(column)
    if best == 0 or numbers >= MOSTLY * known:
        return
    if best == known and len(fitting) > 1:
        message = f"'{name}' is text, and all its values are dates, by {listed(fitting)} alike; which is meant?"
        yield _say("ambiguous_dates", message, name)
    elif best == known:
        form = "ISO 8601" if fitting[0] == "timestamp" else fitting[0]
        yield _say("dates_as_text", f"'{name}' is text, and all its values are dates ({form})", name)
    elif best >= MOSTLY * known:
        yield _say("mixed_dates", _mixed(column, levels, fitting[0], best, "dates"), name)


def _dates(column: ColumnProfile) -> tuple[list[str], int]:
    """The forms of dates that most texts have, and how many rows these are."""
    forms = column.text.forms if column.text else {}
    dates = {form: rows for form, rows in forms.items() if form == "timestamp" or form in DATE_FORMATS}
    best = max(dates.values(), default=0)
    return [form for form, rows in dates.items() if rows == best], best


def _mixed(column: ColumnProfile, levels: Mapping[str, int], form: str, rows: int, what: str) -> str:
    words = list(levels)
    fits = forms_of(words).get(form)
    others = sorted(
        (word for i, word in enumerate(words) if fits is None or not fits[i]), key=lambda word: (-levels[word], word)
    )
    examples = f", e.g. {listed(map(repr, others[:3]))}" if others else ""
    return (
        f"'{column.name}' is text, and {_share(rows, column.known)} of its values are {what}; "
        f"{column.known - rows:,} are not{examples}"
    )


def _correlated(profile: Profile, found: list[Finding]) -> Iterator[Finding]:
    equal = {finding.columns for finding in found if finding.kind == "equal"}
    names, matrix = profile.correlations.columns, profile.correlations.matrix
    target = profile.target.column if profile.target else None
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            value = matrix[i][j]
            if value is None or abs(value) < TELLS_ALL or target in (one, other) or (one, other) in equal:
                continue
            if min(profile.column(one).known, profile.column(other).known) >= FEW_KNOWN:
                yield _say("correlated", f"'{one}' and '{other}' are correlated by {value:.4f}", one, other)


def _of_target(profile: Profile) -> Iterator[Finding]:
    if profile.target is None or profile.target.task is None:
        return
    target = profile.column(profile.target.column)
    name = target.name
    if profile.target.task == "classification":
        rarest = min(target.top, key=lambda top: top.count)
        if target.distinct <= len(target.top) and (rarest.count < RARE * target.known or rarest.count < FEW_KNOWN):
            share = _share(rarest.count, target.known)
            message = f"the target '{name}' is rarely {rarest.value!r}: in {rarest.count:,} rows ({share})"
            yield _say("imbalanced_target", message, name)
    elif target.number is not None and target.number.skewness is not None and abs(target.number.skewness) > SKEWED:
        message = (
            f"the target '{name}' is skewed ({target.number.skewness:.1f}); its logarithm may be easier to predict"
        )
        yield _say("skewed_target", message, name)
    for association in profile.target.associations:
        column = profile.column(association.column)
        if target.known < FEW_KNOWN or column.known < FEW_KNOWN:
            continue
        if association.strength is not None and association.strength > TELLS_ALL:
            how = f"{association.measure.replace('_', ' ')} {association.strength:.4f}"
            message = f"'{column.name}' tells the target '{name}' ({how}); is it known beforehand?"
            yield _say("leakage", message, column.name)
        elif association.null_strength is not None and association.null_strength > NULLS_TELL:
            message = f"whether '{column.name}' is null tells the target '{name}'; is it filled in afterwards?"
            yield _say("leakage", message, column.name)
