"""Running untrusted controllers in locked-down child processes."""
