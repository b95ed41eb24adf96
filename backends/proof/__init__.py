"""Whether lowerings are right: the conformance kit, golden probes, `certify`. Chooses nothing."""
