"""DECA as a teacher: scenes of its coefficients, pictures, analysis by synthesis, animation."""
