"""A target's facts, and where its parts are: what a package's entry point would name."""

from lostwax.backends.registry import Backend
from lostwax.ir.contract.target import Target

TARGETS = (
    Target(
        name="toy",
        backend="toy",
        arch="any",
        dtypes=("f32", "bf16", "i32", "i64", "u8", "f8E4M3FN"),
        memory_bytes=1 << 30,
        bandwidth_gbps=10.0,
        tflops={"f32": 0.1},
        launch_us=2.0,
        compute_units=1,
        replay="walk",
    ),
)
BACKEND = Backend(
    name="toy",
    targets="tutorial.target.toy:TARGETS",
    lowerings="tutorial.target.lowerings:lowerings",
    driver="tutorial.target.driver:ToyDriver",
    compiler=None,
    kernels=("tutorial.target.kernels", "lostwax.backends.portable.kernels"),
)
