"""What is measured: one small program a file, and the voting helpers they share."""
