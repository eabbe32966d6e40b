"""SynthFace: the default people and their photographs."""
