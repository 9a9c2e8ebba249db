//! Below TCP: frames that are longer than a packet buffer.

use std::thread;

use prequeue::{Stack, tcp::Counter};

use crate::{
    LIMIT, MIB,
    bytes::Bytes,
    harness::scenario,
    lab::{PORT, connect, eventually, stack_of},
};

/// A stream from the kernel, checked byte for byte; the size that its segments were found to have.
fn stream(stack: &Stack, len: u64) -> u32 {
    let listener = stack.listen(PORT).expect("the port is free");
    let client = thread::spawn(move || {
        let mut client = connect();
        Bytes::new(0).send(&mut client, len).expect("all is taken");
    });
    let (mut stream, _) = listener.accept().expect("a client comes");
    assert_eq!(Bytes::new(0).check_all(&mut stream).expect("the connection lasts"), len);
    client.join().expect("the client does not panic");
    stream.info().expect("nobody holds a guard").tcpi_rcv_mss
}

#[test]
fn frames_scattered_over_small_buffers_arrive_bit_for_bit() {
    scenario("below::frames_scattered_over_small_buffers_arrive_bit_for_bit", LIMIT, || {
        // Three for each full frame: the tap's driver takes none that are longer.
        let stack = stack_of(|builder| builder.buffer_room(512));
        assert_eq!(stream(&stack, 256 * MIB), 1448, "segments are whole");
        let counters = stack.counters();
        assert_eq!(counters.value(Counter::InErrs) + counters.value(Counter::InHdrErrors), 0);
        let full = 256 * MIB / 1448;
        assert!(counters.value(Counter::InSegs) >= full);
        // What comes in sequence does so three buffers at a time.
        let queued = [Counter::ToPrequeue, Counter::ToReceiveQueue].map(|c| counters.value(c));
        assert!(queued.iter().sum::<u64>() > 5 * full / 2, "{queued:?} of {full} segments");
        // The device keeps a fixed number.
        eventually("the packet buffers are back", || stack.mbufs_in_use() <= 1024 + 64 + 384);
    });
}
