import math

import torch

from ssl_app.models.positions import sines_and_cosines


def test_positions_are_those_of_the_equation():
    found = sines_and_cosines(3, 16)
    assert found.shape == (9, 16)
    for row in range(3):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place / 10_000 ** (i / 4) for i in range(4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(found[row * 3 + column], torch.tensor(expected))


def test_no_two_places_are_alike_and_near_ones_are_most_alike():
    places = sines_and_cosines(16, 192)
    products = places @ places.T  # (256, 256)
    assert products.diagonal().allclose(torch.tensor(96.0))
    assert (products.triu(1).max() < 96.0 - 0.1).all()
    middle = 8 * 16 + 8
    nearest = products[middle].topk(5).indices.tolist()
    assert sorted(nearest) == [middle - 16, middle - 1, middle, middle + 1, middle + 16]
