"""Studies: pretrainings and other baselines compared, at several label fractions, over several seeds."""
