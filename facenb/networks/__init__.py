"""Networks: the encoder SphereFace, linear decoders, the joint network, class heads."""
