//! Raw bindings to the part of DPDK that prequeue uses, and nothing else.
//!
//! Generated when this crate is built, from the headers of the DPDK it is linked with, by an
//! explicit list (see `build.rs`). Functions named `pqs_…` are the C shim in `shim/`: DPDK's static
//! inline functions by the burst, thread-locals, and the layout of `rte_mbuf`. No function here is
//! safe to call without reading DPDK's documentation; the safe wrapper is prequeue's `dpdk` module.
#![no_std]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)] // generated code

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
