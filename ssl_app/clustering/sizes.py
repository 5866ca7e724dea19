"""How many clusters a set of images is given, where the user does not say."""

from ssl_app.errors import DataError, Notice, Set

IMAGES_EACH = 400  # as the papers have it: 128 for CIFAR's 50,000, 3,000 for ImageNet's 1.28 million
FEWEST, MOST = 16, 3000
TOO_FEW_EACH = 10  # images a cluster, below which a label is hardly more than an image's name


def clusters_for(images: int, requested: int | None) -> int:
    """K: what was requested for, or a 400th of the images, 16 to 3,000 and never more than a tenth of them.

    Raises DataError where more clusters were requested for than there are images; warns below ten images each.
    """
    if requested is None:
        return max(2, min(max(FEWEST, images // IMAGES_EACH), MOST, images // TOO_FEW_EACH))
    if requested > images:
        raise DataError(
            f"{images} images cannot fill {requested} clusters", fix=Set("clusters", max(2, images // 10))
        )
    return requested


def few_each(images: int, clusters: int) -> tuple[Notice, ...]:
    """How large the clusters are, and a warning where they are too small, for people."""
    found = f"{clusters} clusters for {images} images, {images / clusters:.1f} images each"
    if images >= TOO_FEW_EACH * clusters:
        return (Notice(found),)
    small = f"{found}: below {TOO_FEW_EACH} a label is hardly more than an image's name"
    fewer = images // TOO_FEW_EACH
    fix = Set("clusters", f"{fewer} or fewer") if fewer > 2 else Set("clusters", 2) if clusters > 2 else None
    return (Notice(small, fixes=() if fix is None else (fix,)),)
