//! The stack as packetdrill drives it: a shared object, in its process, in virtual time.
//!
//! packetdrill loads the object with `--so_filename` and makes every call of a script through a table
//! of C functions; the object is also preloaded, so that a few functions of the C library are ours.
//! There is no thread, device, clock or DPDK here: packets come as calls, time passes as calls.
#![deny(unsafe_code)]

mod address;
mod calls;
mod clock;
mod device;
mod fds;
mod ffi;
mod flags;
mod info;
mod options;
mod poll;
mod socket;
mod sysctl;
#[cfg(test)]
mod tests;
mod world;
