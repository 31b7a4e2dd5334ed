"""The edge where models are asked: one endpoint for each, the moment it is promoted."""
