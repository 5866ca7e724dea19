"""Parts that several pretext methods build on."""
