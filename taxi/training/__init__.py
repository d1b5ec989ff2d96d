"""When a challenger is trained, on what window, and whether it is promoted."""
