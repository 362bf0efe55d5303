"""Labels that the model gives itself, where the holdout proves that it may."""
