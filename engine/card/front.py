"""The front matter of a card in Markdown: what the Hugging Face Hub reads of a model.

Format: https://huggingface.co/docs/hub/model-cards; results are its `model-index`.
"""

from __future__ import annotations

import io
import math
from typing import Any

from treadle.engine.card.blocks import visible
from treadle.engine.card.facts import Facts
from treadle.engine.sections.ensemble import ENSEMBLE

LICENCES = frozenset({
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "mpl-2.0", "gpl", "gpl-2.0", "gpl-3.0",
    "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "cc", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "odbl", "pddl", "unlicense", "zlib", "wtfpl", "eupl-1.1",
    "eupl-1.2", "artistic-2.0", "afl-3.0", "bsl-1.0", "osl-3.0", "postgresql", "ncsa", "ms-pl",
})  # fmt: skip
"""Those that the hub has a name for; another one is `other`, with its own name beside."""
CALLED = {
    "auc": "roc_auc",
    "brier": "brier_score",
    "kappa": "cohen_kappa",
    "mcc": "matthews_correlation",
    "r2": "r_squared",
}
"""Names of metrics on the hub, where they are not ours."""


def front_matter(facts: Facts) -> str:
    """A YAML document between two lines of `---`; results are those on the test rows, else those of the folds."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 100_000
    yaml.representer.sort_base_mapping_type_on_output = False
    out = io.StringIO()
    yaml.dump(_document(facts), out)
    return f"---\n{out.getvalue()}---\n"


def _document(facts: Facts) -> dict[str, Any]:
    task = "tabular-regression" if facts.rule.task == "regression" else "tabular-classification"
    values, rows = _results(facts)
    measured = [
        {"type": CALLED.get(name, name), "name": f"{name}, {rows}", "value": value} for name, value in values.items()
    ]
    algorithm = ENSEMBLE if facts.best.name == ENSEMBLE else facts.best.model
    found: dict[str, Any] = {}
    if (licence := facts.about.licence) is not None:
        known = licence.strip().lower()
        found |= {"license": known} if known in LICENCES else {"license": "other", "license_name": visible(licence)}
    found |= {
        "library_name": "treadle",
        "pipeline_tag": task,
        "tags": ["tabular", task, algorithm, "treadle"],
    }
    if measured:
        main = facts.inputs[0]
        dataset = {"name": visible(main.name), "type": "tabular", "revision": main.digest}
        result = {"task": {"type": task}, "dataset": dataset, "metrics": measured}
        found["metrics"] = [metric["type"] for metric in measured]
        found["model-index"] = [{"name": facts.reference, "results": [result]}]
    return found


def _results(facts: Facts) -> tuple[dict[str, float], str]:
    """The metrics that are numbers, and of which rows they are."""
    evaluation, folds = facts.evaluation, facts.folds
    if folds is not None and evaluation.held_out is None:
        values, rows = facts.row, f"mean of {folds.count} folds"
    else:
        values, rows = (facts.row if folds is None else evaluation.held_out or {}), f"{facts.rule.test_rows} test rows"
    found = {name: values.get(name) for name in facts.metrics}
    return {n: float(v) for n, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}, rows
