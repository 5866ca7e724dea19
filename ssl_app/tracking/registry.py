"""The registry of an MLflow store: a run's model as a version of a name, which an alias points to."""

from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from ssl_app.errors import Fix, RunError
from ssl_app.tracking.base import Network
from ssl_app.tracking.client import FAILURES, StoreClient
from ssl_app.tracking.store import (
    OTHER_OUT,
    OTHER_REMOTE,
    cannot_be_used,
    local_store,
    reason,
    remote_store,
    without_password,
)
from ssl_app.tracking.sync import PATIENT, Sent, Sync, Unreachable
from ssl_app.tracking.tracker import MlflowTracker

MODEL = "ssl_app.model"  # tag of a version: id of its model


@dataclass(frozen=True)
class Registered:
    """A version in a registry."""

    version: int
    where: str  # for people
    uri: str  # of the store, for MLflow's own commands; without a password


def register(
    out: Path, uri: str | None, experiment: str, folder: Path, network: Network, named: tuple[str, str]
) -> Registered:
    """Make a run's model a version of a name, with an alias (`named`), in the local store or the one behind `uri`.

    A run that was not tracked, or before models were kept, gets its model now. Raises RunError where a store does not
    take it.
    """
    local = StoreClient(local_store(out))
    try:
        run_id, model_id = MlflowTracker(local, experiment, None).model_of(folder, network)
    except FAILURES as error:
        raise cannot_be_used(local.store, error, OTHER_OUT[:1]) from error
    remote = None if uri is None else remote_store(out, uri)
    if remote is None:
        return _version(local, run_id, model_id, named)
    sync = Sync(out, local.store, remote, PATIENT)
    sent = Sent()
    try:
        sync.send_run(run_id, sent)
        there = sync.model_there(run_id, model_id)
    except Unreachable as error:
        again = Fix("type the same again when it answers")
        raise RunError(f"{remote.where} takes nothing now ({error})", fix=again) from error
    if there is None:
        why = "; ".join(sent.refused) or "the run was deleted there"
        raise RunError(f"{remote.where} has no model of {folder.name} ({why})", fix=OTHER_REMOTE)
    return _version(sync.remote, *there, named)


def _version(client: StoreClient, run_id: str, model_id: str, named: tuple[str, str]) -> Registered:
    """A version of the name, a new one unless this model is one already. Raises RunError where the store refuses."""
    name, alias = named
    api = client.mlflow

    def source() -> str:
        if (
            client.store.artifacts is None
        ):  # a server knows its models; a database asks MLflow's global store for them
            return f"models:/{model_id}"
        return str(api.get_logged_model(model_id).artifact_location)

    try:
        try:
            api.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = api.search_model_versions(f"name = '{name}'")
        known = [one for one in versions if one.tags.get(MODEL) == model_id]
        tags = {MODEL: model_id}  # a database keeps no model's id with a version
        found = known[0] if known else api.create_model_version(name, source(), run_id, tags, model_id=model_id)
        api.set_registered_model_alias(name, alias, found.version)
    except FAILURES as error:
        raise RunError(f"{client.store.where} did not register it ({reason(error)})") from error
    return Registered(int(found.version), client.store.where, without_password(client.store.uri))
