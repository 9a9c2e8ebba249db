//! Below TCP: frames that are longer than a packet buffer.

use prequeue::tcp::Counter;

use crate::{
    LIMIT, MIB,
    harness::scenario,
    lab::{eventually, stack_of},
    one_stream,
};

#[test]
fn frames_scattered_over_small_buffers_arrive_bit_for_bit() {
    scenario("below::frames_scattered_over_small_buffers_arrive_bit_for_bit", LIMIT, || {
        // Three for each full frame: the tap's driver takes none that are longer.
        let stack = stack_of(|builder| builder.buffer_room(512));
        let info = one_stream(&stack, 256 * MIB).info().expect("nobody holds a guard");
        assert_eq!(info.tcpi_rcv_mss, 1448, "segments are whole");
        let full = 256 * MIB / 1448;
        // An lcore shows what it has counted now and then.
        let in_segs = || stack.counters().value(Counter::InSegs);
        eventually("the segments are counted", || in_segs() >= full);
        let counters = stack.counters();
        assert_eq!(counters.value(Counter::InErrs) + counters.value(Counter::InHdrErrors), 0);
        // What comes in sequence does so three buffers at a time.
        let queued = [Counter::ToPrequeue, Counter::ToReceiveQueue].map(|c| counters.value(c));
        assert!(queued.iter().sum::<u64>() > 5 * full / 2, "{queued:?} of {full} segments");
        // The device keeps a fixed number.
        eventually("the packet buffers are back", || stack.mbufs_in_use() <= 1024 + 64 + 384);
    });
}
