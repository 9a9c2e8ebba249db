//! What TCP_INFO and SO_MEMINFO tell, against what Linux was seen to tell after the same segments.

use std::time::Duration;

use super::harness::*;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{State, TcpInfo};

fn info(c: &Conn) -> TcpInfo {
    c.tcb.info(c.world.now)
}

#[test]
fn a_new_connection_has_seen_the_syn_and_sent_nothing_since() {
    let c = Conn::new();
    let info = info(&c);
    assert_eq!((info.tcpi_state, info.tcpi_options, info.tcpi_ato), (1, 0, 0));
    assert_eq!((info.tcpi_segs_in, info.tcpi_data_segs_in, info.tcpi_segs_out), (1, 0, 0));
    assert_eq!((info.tcpi_bytes_received, info.tcpi_bytes_acked), (0, 0));
    assert_eq!((info.tcpi_rcv_mss, info.tcpi_advmss, info.tcpi_snd_mss), (500, 1460, 1460));
    assert_eq!((info.tcpi_pmtu, info.tcpi_rcv_wnd), (1500, W));
    assert_eq!(info.tcpi_rcv_space, 14_600, "ten segments");
    let later = c.tcb.info(c.world.now + Duration::from_millis(300));
    assert_eq!((later.tcpi_last_data_recv, later.tcpi_last_ack_recv), (300, 300));
}

#[test]
fn each_segment_is_counted_whatever_becomes_of_it() {
    let mut c = Conn::with_sack();
    c.on(data(1, 1000));
    // Above a hole, a duplicate of that, below rcv_nxt, beyond the window, a pure ACK, a RST that is
    // challenged.
    for seg in [data(2001, 1000), data(2001, 1000), data(1, 1000), data(200_000, 9), ack(1001)] {
        c.on(seg);
    }
    c.on(rst(1005));
    let before = info(&c);
    assert_eq!((before.tcpi_segs_in, before.tcpi_data_segs_in), (8, 5));
    assert_eq!(before.tcpi_rcv_ooopack, 2, "a duplicate comes out of order, too");
    assert_eq!(before.tcpi_bytes_received, 1000);
    assert_eq!(before.tcpi_segs_out as usize, c.raw.len());
    assert_eq!(c.tcb.mem_info().drops, 3, "old, beyond, and what is challenged");
    c.on(data(1001, 1000));
    assert_eq!(info(&c).tcpi_bytes_received, 3000);
}

#[test]
fn more_bytes_than_sequence_numbers_are_counted() {
    let mut c = Conn::of(&Opened { scale: Conn::with_scale_of(7), ..opened() });
    c.world.settings.tcp_rmem = [1 << 20; 3];
    // As if all numbers but a few had been used.
    c.tcb.tally.advertises(u32::MAX - 100);
    c.on(data(1, 500));
    c.read_all();
    c.on(data(501, 500));
    assert_eq!(info(&c).tcpi_bytes_received, u64::from(u32::MAX) + 900);
}

#[test]
fn our_fin_is_unacknowledged_until_it_is_acknowledged() {
    let mut c = Conn::new();
    c.shutdown_write();
    let sent = info(&c);
    assert_eq!((sent.tcpi_state, sent.tcpi_unacked, sent.tcpi_bytes_acked), (4, 1, 0));
    c.wait(3500);
    let repeated = info(&c);
    assert!(repeated.tcpi_retransmits >= 1 && repeated.tcpi_rto > sent.tcpi_rto);
    assert_eq!(repeated.tcpi_backoff, repeated.tcpi_retransmits);
    c.on(ack(1).acking(2));
    let acked = info(&c);
    assert_eq!((acked.tcpi_state, acked.tcpi_unacked, acked.tcpi_bytes_acked), (5, 0, 1));
}

#[test]
fn states_have_the_numbers_of_linux() {
    let numbers = [
        (State::Established, 1),
        (State::FinWait1, 4),
        (State::FinWait2, 5),
        (State::TimeWait, 6),
        (State::Closed, 7),
        (State::CloseWait, 8),
        (State::LastAck, 9),
        (State::Closing, 11),
    ];
    for (state, number) in numbers {
        assert_eq!(state.number(), number, "{state:?}");
    }
}

#[test]
fn bytes_stand_where_struct_tcp_info_has_them() {
    let info = TcpInfo {
        tcpi_state: 8,
        tcpi_options: 7,
        tcpi_snd_wscale: 7,
        tcpi_rcv_wscale: 10,
        tcpi_ato: 40_000,
        tcpi_rcv_mss: 536,
        tcpi_last_data_recv: 52,
        tcpi_last_ack_recv: 56,
        tcpi_pmtu: 1500,
        tcpi_advmss: 1448,
        tcpi_rcv_space: 14_480,
        tcpi_bytes_acked: 1,
        tcpi_bytes_received: 0x1_2345_6789,
        tcpi_segs_in: 11,
        tcpi_data_segs_in: 7,
        tcpi_rcv_ooopack: 3,
        tcpi_snd_wnd: 65_536,
        tcpi_rcv_wnd: 92_160,
        ..TcpInfo::default()
    };
    let bytes = info.to_bytes();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((bytes[0], bytes[5], bytes[6]), (8, 7, 7 | 10 << 4));
    // Offsets as the kernel's own sockets showed them.
    for (at, value) in [
        (12, 40_000),
        (20, 536),
        (52, 52),
        (56, 56),
        (60, 1500),
        (84, 1448),
        (96, 14_480),
        (120, 1),
        (128, 0x2345_6789),
        (132, 1),
        (140, 11),
        (152, 7),
        (224, 3),
        (228, 65_536),
        (232, 92_160),
    ] {
        assert_eq!(word(at), value, "at {at}");
    }
}
