"""The way to the kernels: the extension, its operators, and the dense reference that they must equal."""
