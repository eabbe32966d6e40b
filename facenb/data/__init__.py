"""Data sets and photographs as one thing: images, landmarks, identity and ground truth."""
