"""What native kernels may be given: rules as data, asked by lowerings and by the driver."""
