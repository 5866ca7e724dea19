"""Pages of MLflow worth opening, found in the database of the output folder."""

from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.tracking import views
from ssl_app.tracking.client import StoreClient
from ssl_app.tracking.store import OTHER_OUT, cannot_be_used, local_store


def pages_of(out: Path) -> list[tuple[str, str]]:
    """(title, path after the server's address): the newest sweep's views, then all runs of each experiment.

    Raises RunError where the database cannot be used.
    """
    store = local_store(out)
    try:
        experiments = StoreClient(store).mlflow.search_experiments()
    except (MlflowException, SQLAlchemyError) as error:
        raise cannot_be_used(store, error, OTHER_OUT[:1]) from error
    saved = [
        (view.created, view.name, views.view_path(experiment.experiment_id, view.identity))
        for experiment in experiments
        for view in views.saved_views(experiment.tags)
    ]
    newest = max(saved, default=(0, "", ""))[1].rpartition(" of ")[2]
    sweeps = [(name, path) for _, name, path in sorted(saved) if name.rpartition(" of ")[2] == newest]
    filled = [each for each in experiments if each.name != "Default"]  # MLflow makes that one, empty
    runs = [(f"runs of {each.name}", views.runs_path(each.experiment_id)) for each in filled]
    return sweeps + runs
