"""The network: backbones, heads, losses, the model built from them, and its optimizer."""
