"""Room for the rows of a whole set: in memory, or in a file that is mapped where they are many."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ssl_app.data.store import allocate
from ssl_app.runs import draft_path

LARGE = 2**27  # bytes: from there on rows of a CPU lie in a file, whose pages the system may write out and drop


def empty_rows(count: int, like: Tensor, folder: Path | None) -> Tensor:
    """Room for so many rows like those of a batch, (count, ...), of their type and on their device.

    A file has no name any more when this returns, and goes with the tensor; `folder` is the disk it lies on, None the
    one for temporary files. Raises OSError, which names the folder, where it has no room.
    """
    shape = (count, *like.shape[1:])
    size = count * like[:1].numel() * like.element_size()
    if size < LARGE or like.device.type != "cpu":
        return like.new_empty(shape)
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    path = draft_path(folder / "rows")
    try:
        flat = allocate(path, "u1", (size,))
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        path.unlink(missing_ok=True)
    return torch.from_numpy(flat).view(like.dtype).view(shape)
