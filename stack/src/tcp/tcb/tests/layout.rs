//! The size of a connection, and where in it the in-order path works.

use std::mem::{offset_of, size_of};

use crate::buf::HeapBuf;
use crate::tcp::tcb::Tcb;

/// Head, tail and length of an intrusive queue; the heap twin's is larger.
const QUEUE: usize = 24;

#[test]
fn the_in_order_path_stays_in_two_cache_lines() {
    assert!(offset_of!(Tcb<HeapBuf>, receive) + QUEUE <= 128);
    assert!(offset_of!(Tcb<HeapBuf>, receive) < offset_of!(Tcb<HeapBuf>, ofo));
}

#[test]
fn a_connection_takes_six_cache_lines_at_most() {
    assert!(size_of::<Tcb<HeapBuf>>() <= 384, "{}", size_of::<Tcb<HeapBuf>>());
}
