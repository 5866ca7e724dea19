"""Top activations: the images that activate a channel most, the receptive field of the unit marked as a box."""

from pathlib import Path

from ssl_app.errors import SettingsError
from ssl_app.models.receptive_field import ReceptiveFields, receptive_fields
from ssl_app.report.grid import Grid, Tile
from ssl_app.report.pictures.base import Picture, Subject
from ssl_app.report.sheet import Sheet
from ssl_app.training import activations

CHANNELS, IMAGES = 6, 8


class TopActivations(Picture):
    """One sheet a layer: channels down, the most selective first; their images across, the most active first."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`top-activations-LAYER.png` of each layer. Raises SettingsError where no layer has a map."""
        layers = subject.map_layers(smallest=1)
        found = activations.top_activations(subject.backbone, layers, subject.rows, subject.hardware, IMAGES)
        fields = receptive_fields(subject.backbone, layers)
        return [
            _sheet(subject, layer, top, field).save(folder / f"top-activations-{layer}.png")
            for layer, top, field in zip(layers, found, fields, strict=True)
        ]


def _sheet(subject: Subject, layer: str, found: activations.TopActivations, fields: ReceptiveFields) -> Sheet:
    channels = found.most_selective(CHANNELS)
    if not len(channels):
        raise SettingsError(f"no channel of layer '{layer}' of {subject.name} differs between images")
    images = found.images[channels]  # (n, k)
    pictures = subject.pictures(images.ravel())
    tiles = [
        [
            Tile(
                pictures[row * images.shape[1] + place],
                subject.caption(int(image)),
                box=_box(fields, int(found.places[channel, place])),
            )
            for place, image in enumerate(images[row])
        ]
        for row, channel in enumerate(channels)
    ]
    rows = [f"channel {k}\n{found.values[k, 0]:.2f} to {found.values[k, -1]:.2f}" for k in channels]
    return Grid(f"Top activations of {layer}, {subject.name}", _about(subject, found, fields), (), rows).sheet(
        tiles, subject.tile
    )


def _about(subject: Subject, found: activations.TopActivations, fields: ReceptiveFields) -> str:
    height, width = fields.largest
    box = f"the box is its receptive field, at most {height} x {width} of {fields.side} x {fields.side} pixels"
    if fields.whole:
        box = "its receptive field is the whole image"
    constant = int((found.deviation == 0).sum())
    never = f" {constant} channels are the same for every image." if constant else ""
    return (
        f"Each row is one of {len(found.values)} channels, those whose top images stand out most.{never} Of "
        f"{len(subject.keys):,} images it shows the {found.values.shape[1]} with the most active unit; {box}."
    )


def _box(fields: ReceptiveFields, place: int) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom in sides of the image; None where every unit sees all of it."""
    if fields.whole:
        return None
    box = fields.box(place)
    return box.left / fields.side, box.top / fields.side, box.right / fields.side, box.bottom / fields.side
