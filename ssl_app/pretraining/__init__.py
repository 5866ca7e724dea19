"""Stage one: unlabeled images, a pretext method and a backbone brought together and trained."""
