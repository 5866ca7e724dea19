import errno

import pytest
import torch

from ssl_app.training import rows
from ssl_app.training.rows import empty_rows


def test_few_rows_lie_in_memory(tmp_path):
    found = empty_rows(5, torch.zeros(2, 3, dtype=torch.bfloat16), tmp_path)
    assert found.shape == (5, 3)
    assert found.dtype == torch.bfloat16
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "like", [torch.zeros(2, 3), torch.zeros(1, 4, 2, dtype=torch.bfloat16), torch.zeros(3).long()]
)
def test_many_rows_lie_in_a_file_without_a_name(tmp_path, monkeypatch, like):
    monkeypatch.setattr(rows, "LARGE", 1)
    found = empty_rows(5000, like, tmp_path)
    assert not list(tmp_path.iterdir())
    assert (found.shape, found.dtype) == ((5000, *like.shape[1:]), like.dtype)
    values = torch.arange(found.numel()).view(found.shape).to(like.dtype)
    found.index_copy_(0, torch.arange(5000), values)
    assert torch.equal(found, values)
    with open("/proc/self/maps") as maps:
        assert sum(str(tmp_path) in line for line in maps) == 1


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows, "LARGE", 1)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as error:
        empty_rows(5000, torch.zeros(1, 2), tmp_path)
    assert error.value.filename == str(tmp_path)
    assert not list(tmp_path.iterdir())
