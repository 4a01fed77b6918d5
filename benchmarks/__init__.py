"""Speed, memory and accuracy, side by side with other tools. Started from the checkout; not part of the wheel."""
