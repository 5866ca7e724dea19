"""Networks as MLflow's logged models: weights, a signature, and the name of the module that loads them.

The code of a model is that of the installed package, so nothing is pickled and nothing copied but the weights. MLflow
imports the module that `Network.loader` names and calls its `_load_pyfunc` (a "loader module" in its words).
"""

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities import Run as MlflowRun
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from ssl_app.tracking.base import Network
from ssl_app.tracking.client import OWN_KEY, StoreClient

PREFIX = "p_"  # of the columns of probabilities, as in the tables of predictions


@dataclass(frozen=True)
class Measured:
    """Points of a run's metrics that are of its model, and the data that they are of."""

    metrics: Sequence[Metric]
    data: tuple[str, str] | None  # name and digest


def log_model(
    client: StoreClient, run: MlflowRun, network: Network, key: str, measured: Measured | None = None
) -> LoggedModel:
    """Keep a run's network. One that is there already under this key, whole or half made, is written again."""
    api, info = client.mlflow, run.info
    found = model_with_key(client, info.experiment_id, key)
    if found is None:
        found = api.create_logged_model(
            info.experiment_id,
            name=network.kind,
            source_run_id=info.run_id,
            tags={OWN_KEY: key},
            params=dict(run.data.params),
            model_type=network.kind,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(path, network, found.model_id, info.run_id)
        api.log_model_artifacts(found.model_id, str(path))
    _link(client, info.run_id, found.model_id)
    if measured is not None:
        of = measured.data or (None, None)
        own = [Metric(one.key, one.value, one.timestamp, one.step, found.model_id, *of) for one in measured.metrics]
        client.log(info.run_id, own)
    api.finalize_logged_model(found.model_id, "READY")  # last: what is ready may be sent on
    return found


def model_with_key(client: StoreClient, experiment_id: str, key: str) -> LoggedModel | None:
    """The model of that key, if there is one."""
    found = client.mlflow.search_logged_models([experiment_id], f"tags.`{OWN_KEY}` = '{key}'", max_results=1)
    return next(iter(found), None)


def models_of(client: StoreClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """The models of a run that are whole, oldest first."""
    found = client.mlflow.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    return sorted(filter(is_whole, found), key=lambda one: int(one.creation_timestamp))


def is_whole(model: LoggedModel) -> bool:
    """Whether all of a model's files are there."""
    return bool(model.status == LoggedModelStatus.READY)


def copy_model(model: LoggedModel, there: StoreClient, experiment_id: str, run_id: str) -> tuple[str, bool]:
    """Keep a model of the local store in another one too, as that of a run there.

    -> its id there, and whether anything was sent: one that is there already is left, a half made one made whole.
    """
    api = there.mlflow
    found = model_with_key(there, experiment_id, model.tags[OWN_KEY])
    if found is None:
        found = api.create_logged_model(
            experiment_id, model.name, run_id, dict(model.tags), dict(model.params), model.model_type
        )
    if is_whole(found):
        return found.model_id, False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        shutil.copytree(url2pathname(urlsplit(model.artifact_location).path), path)
        about = Model.load(str(path))
        about.model_id, about.run_id = found.model_id, run_id
        about.save(str(path / "MLmodel"))
        api.log_model_artifacts(found.model_id, str(path))
    _link(there, run_id, found.model_id)
    there.log(run_id, [_of_model(one, found.model_id) for one in model.metrics or ()])
    api.finalize_logged_model(found.model_id, "READY")
    return found.model_id, True


def _link(client: StoreClient, run_id: str, model_id: str) -> None:
    """Say that a model came of a run; MLflow fails where that is said twice."""
    outputs = client.mlflow.get_run(run_id).outputs
    if model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        client.mlflow.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])


def _of_model(metric: Metric, model_id: str) -> Metric:
    data = metric.dataset_name, metric.dataset_digest
    return Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id, *data)


def write_model(path: Path, network: Network, model_id: str, run_id: str) -> None:
    """Write a model's folder: its weights, what it takes and gives, and the packages that it needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own type hints, and that there is no input example
        from mlflow import pyfunc  # .4 s

        pyfunc.save_model(
            path,
            loader_module=network.loader,
            data_path=str(network.weights),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            signature=_signature(network),
            pip_requirements=_requirements(),  # else MLflow loads the model in another process to find out
            metadata=_metadata(network),
        )


def _signature(network: Network) -> ModelSignature:
    """(N, H, W) or (N, H, W, C) pixels -> a label and probabilities, or (N, D) features."""
    shape = (-1, -1, -1) if network.channels == 1 else (-1, -1, -1, network.channels)
    inputs = Schema([TensorSpec(np.dtype(network.dtype), shape)])
    if not network.classes:
        return ModelSignature(inputs, Schema([TensorSpec(np.dtype("float32"), (-1, -1))]))
    columns = [ColSpec(DataType.double, PREFIX + name) for name in network.classes]
    return ModelSignature(inputs, Schema([ColSpec(DataType.string, "label"), *columns]))


def _metadata(network: Network) -> Mapping[str, object]:
    return {"classes": list(network.classes), "channels": network.channels, "dtype": network.dtype}


def _requirements() -> list[str]:
    """What the package itself needs. The package is on no index: it must be installed where the model is served."""
    try:
        return [line for line in requires("ssl-app") or [] if "extra ==" not in line]
    except PackageNotFoundError:  # run from its sources alone
        return ["torch", "mlflow"]
