"""The paper's tables and our own, made anew: each row trained by its recipe, all scored on the same degraded images."""
