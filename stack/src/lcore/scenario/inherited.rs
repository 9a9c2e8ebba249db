//! What connections have from their listener and from the settings, and how they are listed.

use std::num::NonZeroU8;

use super::*;
use crate::socket::SocketOptions;
use crate::tcp::tcb::{KeepAlive, Linger2};

fn listening_with(world: &mut World, sockets: SocketOptions) -> TcpListener<HeapBuf> {
    let options = ListenOptions { backlog: 5, sockets, ..ListenOptions::default() };
    let queue = world.listeners.listen_with(PORT, options).expect("nobody listens yet");
    world.turn();
    TcpListener::new(queue, SocketAddrV4::new(OUR_ADDR, PORT))
}

#[test]
fn an_accepted_connection_has_the_options_of_its_listener() {
    let second = Duration::from_secs(1);
    let sockets = SocketOptions {
        receive_buffer: Some(20_000),
        receive_low_water: Some(300),
        read_timeout: Some(5 * second),
        linger: Some(Duration::ZERO),
        out_of_band_inline: true,
        keepalive: Some(KeepAlive { idle: Some(9 * second), ..KeepAlive::default() }),
        window_clamp: Some(9000),
        user_timeout: Some(7 * second),
        linger2: Linger2::Reset,
        tos: 0x48,
        ttl: NonZeroU8::new(9),
        low_latency: Some(true),
    };
    let mut world = World::new(Settings::default());
    let listener = listening_with(&mut world, sockets);
    let (_, stream) = Peer::connected(&mut world, 40_000, &listener);
    assert_eq!(stream.receive_buffer().unwrap(), 40_000, "twice what was asked for, as in Linux");
    assert_eq!(stream.receive_low_water(), 300);
    assert_eq!(stream.read_timeout().unwrap(), sockets.read_timeout);
    assert_eq!(stream.linger().unwrap(), sockets.linger);
    assert!(stream.out_of_band_inline());
    assert_eq!(stream.keepalive().unwrap(), sockets.keepalive);
    assert_eq!(stream.window_clamp().unwrap(), 9000);
    assert_eq!(stream.user_timeout().unwrap(), sockets.user_timeout);
    assert_eq!(stream.linger2().unwrap(), Linger2::Reset);
    assert_eq!((stream.tos().unwrap(), stream.ttl().unwrap()), (0x48, NonZeroU8::new(9)));
    assert!(stream.is_low_latency());
}

#[test]
fn a_connection_of_a_listener_without_wishes_is_as_the_settings_say() {
    for low_latency in [false, true] {
        let settings = Settings { tcp_low_latency: low_latency, ..Settings::default() };
        let mut world = World::new(settings.clone());
        let listener = listening_with(&mut world, SocketOptions::default());
        let (_, stream) = Peer::connected(&mut world, 40_000, &listener);
        assert_eq!(stream.receive_buffer().unwrap(), settings.tcp_rmem[1]);
        assert_eq!(stream.receive_low_water(), 1);
        assert_eq!(stream.read_timeout().unwrap(), None);
        assert_eq!((stream.linger().unwrap(), stream.keepalive().unwrap()), (None, None));
        assert!(!stream.out_of_band_inline());
        assert_eq!(stream.is_low_latency(), low_latency);
    }
    // The listener's wish prevails.
    let settings = Settings { tcp_low_latency: true, ..Settings::default() };
    let mut world = World::new(settings);
    let no = SocketOptions { low_latency: Some(false), ..SocketOptions::default() };
    let listener = listening_with(&mut world, no);
    assert!(!Peer::connected(&mut world, 40_000, &listener).1.is_low_latency());
}

#[test]
fn the_handshake_goes_by_the_buffer_that_was_asked_for() {
    // Buffers in bytes as asked for, and what Linux answers: the window, and a scale that covers half.
    for (asked, window, shift) in
        [(10_000, 8760, 0), (65_536, 64_240, 1), (4_000_000, 64_240, 6), (2_000_000_000, 64_240, 7)]
    {
        let mut world = World::new(Settings::default());
        let sockets = SocketOptions { receive_buffer: Some(asked), ..SocketOptions::default() };
        let listener = listening_with(&mut world, sockets);
        let mut peer = Peer::new(40_000);
        world.receive([peer.syn()]);
        let syn_ack = world.expect_segment();
        assert_eq!(syn_ack.options.window_scale, Some(shift), "{asked}");
        assert_eq!(u32::from(syn_ack.segment.window).min(64_240), window, "{asked}");
        peer.take(&syn_ack);
        world.receive([peer.ack()]);
        let stream = accept(&listener).expect("accepted");
        let granted = Settings::default().granted_rcvbuf(asked);
        assert_eq!(stream.receive_buffer().unwrap(), granted);
    }
}

#[test]
fn the_handshake_goes_by_the_clamp_of_the_listener_as_it_is_when_the_syn_comes() {
    let mut world = World::new(Settings::default());
    let listener = listening_with(&mut world, SocketOptions::default());
    let mut streams = Vec::new();
    for (port, clamp, window, shift) in
        [(40_000, None, 64_240, 10), (40_001, Some(10_000), 8760, 0), (40_002, None, 64_240, 10)]
    {
        let sockets = SocketOptions { window_clamp: clamp, ..SocketOptions::default() };
        let options = ListenOptions { sockets, ..ListenOptions::default() };
        assert!(world.listeners.change(PORT, options));
        world.turn();
        let mut peer = Peer::new(port);
        world.receive([peer.syn()]);
        let syn_ack = world.expect_segment();
        let said = (syn_ack.segment.window, syn_ack.options.window_scale);
        assert_eq!(said, (window, Some(shift)), "{clamp:?}");
        peer.take(&syn_ack);
        world.receive([peer.ack()]);
        let stream = accept(&listener).expect("accepted");
        assert_eq!(stream.window_clamp().unwrap(), clamp.unwrap_or(65_536 - 1460));
        streams.push(stream);
    }
    assert!(!world.listeners.change(PORT + 1, ListenOptions::default()), "nobody listens there");
}

#[test]
fn keepalive_goes_by_the_settings_where_the_socket_does_not_say() {
    let settings = Settings {
        tcp_keepalive_time: Duration::from_secs(20),
        tcp_keepalive_intvl: Duration::from_secs(3),
        tcp_keepalive_probes: 2,
        ..Settings::default()
    };
    let own = KeepAlive { interval: Some(Duration::from_secs(1)), ..KeepAlive::default() };
    for (keepalive, waits) in
        [(KeepAlive::default(), [20_000, 3000, 3000]), (own, [20_000, 1000, 1000])]
    {
        let mut world = World::new(settings.clone());
        let sockets = SocketOptions { keepalive: Some(keepalive), ..SocketOptions::default() };
        let listener = listening_with(&mut world, sockets);
        let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
        for (n, wait) in waits.into_iter().enumerate() {
            let (ms, sent) = world.wait_for_segment();
            assert_eq!(ms, wait, "segment {n}");
            match n {
                2 => sent.is(RST.with(ACK), peer.ack, peer.seq),
                _ => sent.is(ACK, peer.ack - 1, peer.seq),
            }
        }
        drop(stream);
    }
}

#[test]
fn all_connections_are_listed_whoever_owns_them() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    // One with unread bytes, one that a thread owns, one half open, one in TIME-WAIT.
    let (mut unread, one) = Peer::connected(&mut world, 40_000, &listener);
    world.receive([unread.data(b"0123456789")]);
    world.sent.clear();
    let (mut owned, two) = Peer::connected(&mut world, 40_001, &listener);
    let guard = two.lock();
    world.receive([owned.data(b"backlog")]);
    world.sent.clear();
    let mut closed = Peer::new(40_003);
    closed.shake_hands(&mut world);
    drop(accept(&listener).expect("accepted"));
    world.turn();
    closed.ack += 1;
    world.receive([closed.fin()]);
    world.receive([Peer::new(40_002).syn()]);

    let mut roll = Roll::with_room_for(10);
    let mut calls = 1;
    while !world.engines[0].call_roll(&mut roll, world.now) {
        calls += 1;
    }
    assert!(calls <= 3, "a table a call, where there are so few");
    let mut rows: Vec<_> = roll.rows.iter().collect();
    rows.sort_by_key(|row| row.peer.port());
    let states: Vec<_> = rows.iter().map(|row| (row.peer.port(), row.state_name())).collect();
    let expected = [(40_000, "ESTAB"), (40_001, "-"), (40_002, "SYN-RECV"), (40_003, "TIME-WAIT")];
    assert_eq!(states, expected);
    assert_eq!((rows[0].unread, rows[0].backlog), (Some(10), 0));
    let (info, memory) = rows[0].detail.expect("nobody owns it");
    assert_eq!((info.tcpi_bytes_received, info.tcpi_segs_in), (10, 3));
    assert_eq!(memory.rmem_alloc, rows[0].rmem);
    assert_eq!((rows[1].unread, rows[1].backlog, rows[1].detail), (None, 1, None));
    drop(guard);
    drop(one);
}
