"""From a recipe to export.pkl, and how good the model is."""
