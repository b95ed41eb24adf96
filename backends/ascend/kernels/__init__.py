"""Host functions over CANN's operators, as torch_npu names them. Run without xdsl."""
