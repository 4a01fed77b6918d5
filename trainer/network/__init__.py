"""What is trained: bases, heads, losses, the model made of them, and its optimizer."""
