"""ssl-app: unlabeled images of your own, turned into fewer labels needed."""
