"""Any image, enlarged."""
