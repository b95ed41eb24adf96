"""What CANN's operators mean, as torch functions for the CPU: our reading of their documentation.

They run lowerings where there is no NPU: evidence for `interpreted`, never for `executed`. Each
refuses a call that the operator's rule forbids.
"""
