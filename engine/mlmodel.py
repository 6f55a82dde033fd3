"""What makes a bundle a model of MLflow: `MLmodel`, and the environment that it predicts in. Nothing needs MLflow here.

<folder>/MLmodel            flavour python_function, loaded by treadle.engine.pyfunc; its signature
         requirements.txt   Treadle and its libraries, as they were in the run
         python_env.yaml    the Python of the run, and these

Columns of the input have the type `any` in the signature: MLflow then passes values on as they are, and Treadle holds
them against the kinds of the training itself. MLflow's own types would refuse whole numbers beside nulls and whole
numbers for floats, cut times that nanoseconds do not reach, and read a null as False when a server gets it as JSON.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treadle.engine.document import digest
from treadle.engine.store import Store

if TYPE_CHECKING:
    from treadle.engine.bundle import BundleDocument

FILE = "MLmodel"
LOADER = "treadle.engine.pyfunc"
TYPES: Mapping[str, str] = {
    "int": "long", "float": "double", "bool": "boolean", "text": "string", "timestamp": "datetime",
}  # fmt: skip
"""MLflow's name of each kind of column."""


def write_mlmodel(store: Store, folder: str, document: BundleDocument) -> None:
    """Writes the three files beside a bundle's."""
    lines = [f"{name}=={version}\n" for name, version in document.libraries.items()]
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    for name, text in (
        ("requirements.txt", "".join(lines)),
        ("python_env.yaml", _yaml(environment)),
        (FILE, _yaml(mlmodel(document))),
    ):
        with store.writing(f"{folder}/{name}") as file:
            file.write(text.encode())


def mlmodel(document: BundleDocument) -> dict[str, Any]:
    """The content of `MLmodel`."""
    return {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "python_version": platform.python_version(),
                "env": {"virtualenv": "python_env.yaml"},
            }
        },
        "metadata": {
            "treadle": {
                "model": f"{document.name}:{document.version}",
                "run": document.run,
                "task": document.task,
                "trained_with": document.model,
                "target": document.target,
                "inputs": dict(document.inputs),
            }
        },
        # Stable, so that the same bundle written again is the same model.
        "model_uuid": digest([document.name, document.version, document.fingerprint]) * 2,
        "signature": signature(document),
        "utc_time_created": document.created.replace("T", " ").removesuffix("+00:00").removesuffix("Z"),
    }


def signature(document: BundleDocument) -> dict[str, str]:
    """The signature as MLflow writes it: schemas as JSON texts."""
    inputs = [{"name": name, "type": "any", "required": True} for name in document.inputs]
    explain = {"name": "explain", "type": "boolean", "default": False, "shape": None}
    return {
        "inputs": json.dumps(inputs),
        "outputs": json.dumps(
            [{"name": name, "type": type_, "required": True} for name, type_ in outputs(document).items()]
        ),
        "params": json.dumps([explain]),
    }


def outputs(document: BundleDocument) -> dict[str, str]:
    """The columns of predictions, with MLflow's types."""
    ids = TYPES[document.inputs[document.id]] if document.id is not None else "long"
    if document.task == "regression":
        return {"id": ids, "score": "double", "margin": "double"}
    kinds: dict[type, str] = {bool: "boolean", int: "long", float: "double", str: "string"}
    class_ = kinds[type(document.classes[0])]
    if document.task == "binary":
        return {"id": ids, "score": "double", "margin": "double", "class": class_}
    scores = {f"{kind}_{value}": "double" for kind in ("score", "margin") for value in document.classes}
    return {"id": ids, **scores, "class": class_}


def _yaml(value: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000
    text = io.StringIO()
    yaml.dump(dict(value), text)
    return text.getvalue()
