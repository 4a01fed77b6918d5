"""Speed, memory and accuracy compared with other tools. Run from the checkout; not part of the wheel."""
