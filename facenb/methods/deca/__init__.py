"""DECA as a teacher: scenes from coefficients, training images, analysis by synthesis, animation."""
