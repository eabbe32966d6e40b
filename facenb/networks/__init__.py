"""Networks: SphereFace, joint network, class heads, ResNet, DECA with its detail decoder, and released networks."""
