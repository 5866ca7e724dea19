"""Stage two: strategies, trials and sweeps, from a backbone and a few labels to a tested classifier."""
