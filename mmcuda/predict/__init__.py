"""Using a trained model: probabilities and features of new images, export to other programs."""
