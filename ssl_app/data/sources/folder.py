"""A folder of images, at any depth and of mixed formats; its sub-folders are classes.

The rule: top folders named only train, val or test are a split. Below the root, or below the split,
the first folder is the class, where every image lies in one and there are two or more of them.
Elsewhere the images are unlabeled.
"""

from pathlib import Path

from ssl_app.data.files import file_kinds, kind_for, looks
from ssl_app.data.images import EXTENSIONS
from ssl_app.data.members import Listed, Members, several_notice
from ssl_app.data.sources.base import FOLDER_NAMES, UNUSED, Columns, only_in_manifests
from ssl_app.data.survey import IMAGES, arrangement, empty_classes, hints, survey
from ssl_app.errors import DataError


class Folder(Members):
    """Images in a folder."""

    last_resort = True

    def __init__(self, data: str, columns: Columns) -> None:
        only_in_manifests(data, columns, "the folder")
        self.name = data
        root, at = Path(data), Path(data).resolve()
        found = survey(data, file_kinds()).without(columns.omit)
        beside = found.beside(IMAGES)
        instead = hints(root)
        paths = found.files.get(IMAGES, [])
        if not paths:
            more = "".join(f"; {notice.found}" for notice in [*beside, *instead])
            raise DataError(
                f"no images found in {data}{more}",
                expected=f"{', '.join(sorted(EXTENSIONS))}, or files of one other kind, at any depth",
                fix=[fix for hint in instead for fix in hint.fixes],
            )
        listed = looks([Listed(path, at / path, kind_for(at / path)) for path in paths], columns)
        parents = self.take(listed)
        splits, labels, remarks = arrangement([tuple(path.split("/")[:-1]) for path in paths])
        if splits is not None and columns.split != UNUSED:
            self.splits = tuple(splits[parent] for parent in parents)
        if labels is not None and columns.label != UNUSED:
            self.labels = tuple(labels[parent] for parent in parents)
        self.columns = Columns(
            label=FOLDER_NAMES if self.labels else None,
            split=FOLDER_NAMES if self.splits else None,
            axis=columns.axis,
        )
        self.set_groups(listed, parents, columns)
        remarks = remarks if columns.label != UNUSED else []
        if self.labels is not None:
            remarks += empty_classes(found, labels or (), splits is not None)
        self.notes = (*remarks, *several_notice(listed), *beside, *instead)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a folder."""
        return Path(data).is_dir()
