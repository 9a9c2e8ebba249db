//! Pollers over engines: which events a poll reports after which segments and calls.

use std::io::ErrorKind;
use std::net::Shutdown;

use crate::socket::{Events, Interest, Poller, Source, Token, Trigger};

use super::*;

const ALL: Interest = Interest::READ.with(Interest::RDHUP).with(Interest::PRIORITY);
const STREAM: Token = Token(7);

/// What a poll that does not wait reports: tokens and bits.
fn poll_all(poller: &Poller) -> Vec<(usize, String)> {
    let mut events = Events::with_capacity(64);
    let n = poller.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert_eq!(n, events.len());
    let of = |event: &crate::socket::Event| (event.token().0, format!("{:?}", event.readiness()));
    events.iter().map(of).collect()
}

/// The bits of the one stream; empty if it is not reported.
fn poll(poller: &Poller) -> String {
    let mut all = poll_all(poller);
    assert!(all.len() <= 1, "one registration, several events: {all:?}");
    all.pop().map_or(String::new(), |(token, bits)| {
        assert_eq!(token, STREAM.0);
        bits
    })
}

/// A connection, a poller, and what a test does with them.
struct Table {
    world: World,
    peer: Peer,
    stream: TcpStream<HeapBuf>,
    poller: Poller,
    listener: TcpListener<HeapBuf>,
}

/// What happens between two polls.
#[derive(Clone, Copy, Debug)]
enum Do {
    Nothing,
    /// So many bytes come, in one segment.
    Data(usize),
    /// The same above a hole of one byte.
    Beyond(usize),
    Fin,
    Rst,
    /// Read at most this many bytes.
    Read(usize),
    LowWater(u32),
    ShutRead,
    ShutWrite,
    TakeError,
    /// Register anew with this interest and trigger.
    Again(Interest, Trigger),
}

impl Table {
    fn new(interest: Interest, trigger: Trigger) -> Self {
        let mut world = World::new(Settings::default());
        let listener = listening(&mut world, 5);
        let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
        let poller = Poller::new().unwrap();
        poller.register(&stream, STREAM, interest, trigger).unwrap();
        Self { world, peer, stream, poller, listener }
    }

    fn act(&mut self, what: Do) {
        let Self { world, peer, stream, poller, .. } = self;
        match what {
            Do::Nothing => {}
            Do::Data(n) => world.receive([peer.data(&vec![1; n])]),
            Do::Beyond(n) => world.receive([peer.segment(ACK, 1, &vec![1; n])]),
            Do::Fin => world.receive([peer.fin()]),
            Do::Rst => world.receive([peer.segment(RST, 0, &[])]),
            Do::Read(n) => drop(read(stream, n)),
            Do::LowWater(bytes) => stream.set_receive_low_water(bytes).unwrap(),
            Do::ShutRead => stream.shutdown(Shutdown::Read).unwrap(),
            Do::ShutWrite => stream.shutdown(Shutdown::Write).unwrap(),
            Do::TakeError => drop(stream.take_error()),
            Do::Again(interest, trigger) => {
                poller.reregister(stream, STREAM, interest, trigger).unwrap();
            }
        }
        self.world.turn();
    }

    /// After each act, polls and compares.
    #[track_caller]
    fn run(&mut self, rows: &[(Do, &str)]) {
        for (row, &(what, expected)) in rows.iter().enumerate() {
            self.act(what);
            assert_eq!(poll(&self.poller), expected, "row {row}: {what:?}");
        }
    }
}

#[test]
fn level_reports_for_as_long_as_it_is_so() {
    Table::new(ALL, Trigger::Level).run(&[
        (Do::Nothing, ""),
        (Do::Data(10), "IN|RDNORM"),
        (Do::Nothing, "IN|RDNORM"),
        (Do::Read(4), "IN|RDNORM"),
        (Do::Read(6), ""),
        (Do::Nothing, ""),
        (Do::Beyond(5), ""),
        (Do::Data(1), "IN|RDNORM"),
        (Do::Read(100), ""),
        (Do::Fin, ""),
    ]);
}

#[test]
fn level_reports_the_ends() {
    Table::new(ALL, Trigger::Level).run(&[
        (Do::Fin, "IN|RDNORM|RDHUP"),
        (Do::Read(1), "IN|RDNORM|RDHUP"),
        (Do::ShutWrite, "IN|HUP|RDNORM|RDHUP"),
        (Do::Nothing, "IN|HUP|RDNORM|RDHUP"),
    ]);
    Table::new(ALL, Trigger::Level).run(&[
        (Do::ShutWrite, ""),
        (Do::Data(3), "IN|RDNORM"),
        (Do::ShutRead, "IN|HUP|RDNORM|RDHUP"),
    ]);
    Table::new(ALL, Trigger::Level).run(&[
        (Do::Rst, "IN|ERR|HUP|RDNORM|RDHUP"),
        (Do::TakeError, "IN|HUP|RDNORM|RDHUP"),
        (Do::Read(1), "IN|HUP|RDNORM|RDHUP"),
    ]);
    Table::new(ALL, Trigger::Level).run(&[
        (Do::Data(3), "IN|RDNORM"),
        (Do::Rst, "IN|ERR|HUP|RDNORM|RDHUP"),
        // The data is read first, then the error is told.
        (Do::Read(3), "IN|ERR|HUP|RDNORM|RDHUP"),
        (Do::Read(3), "IN|HUP|RDNORM|RDHUP"),
    ]);
}

#[test]
fn the_low_water_mark_holds_data_back_and_fin_does_not_care() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        Table::new(ALL, trigger).run(&[
            (Do::LowWater(10), ""),
            (Do::Data(9), ""),
            (Do::Data(1), "IN|RDNORM"),
            (Do::Read(1), ""),
            (Do::LowWater(9), "IN|RDNORM"),
            (Do::Read(1), ""),
            (Do::Fin, "IN|RDNORM|RDHUP"),
        ]);
    }
}

#[test]
fn an_urgent_byte_is_told_until_it_is_read_or_passed() {
    let mut table = Table::new(ALL, Trigger::Level);
    table.act(Do::Data(2));
    let Table { world, peer, .. } = &mut table;
    let out =
        Outgoing { seq: peer.seq, ack: peer.ack, flags: ACK, window: 1000, ..Outgoing::default() };
    let mut urgent = peer.frame(Outgoing { flags: ACK.with(Flags::URG), ..out }, b"!");
    // The pointer names the byte behind the urgent one; the checksum goes with it.
    let pointer = 14 + 20 + 18;
    let sum = pointer - 2;
    let old = u16::from_be_bytes([urgent[sum], urgent[sum + 1]]);
    let added = u32::from(!old) + 1;
    let new = !((added & 0xffff) + (added >> 16)) as u16;
    urgent[pointer + 1] = 1;
    urgent[sum..pointer].copy_from_slice(&new.to_be_bytes());
    peer.seq += 1;
    world.receive([urgent]);
    table.run(&[
        (Do::Nothing, "IN|PRI|RDNORM"),
        // Two bytes lie before the mark; the urgent one is not data.
        (Do::Read(10), "PRI"),
        (Do::Data(1), "IN|PRI|RDNORM"),
        (Do::Read(10), ""),
    ]);
}

#[test]
fn edge_reports_what_has_come_since() {
    Table::new(ALL, Trigger::Edge).run(&[
        (Do::Nothing, ""),
        (Do::Data(10), "IN|RDNORM"),
        (Do::Nothing, ""),
        // Reading a part makes no event, more data does, also if the rest was not read.
        (Do::Read(4), ""),
        (Do::Data(10), "IN|RDNORM"),
        (Do::Data(10), "IN|RDNORM"),
        (Do::Nothing, ""),
        (Do::Beyond(5), ""),
        (Do::Read(100), ""),
        (Do::Data(1), "IN|RDNORM"),
        (Do::Again(ALL, Trigger::Edge), "IN|RDNORM"),
        (Do::Nothing, ""),
    ]);
    Table::new(ALL, Trigger::Edge).run(&[
        (Do::Data(1), "IN|RDNORM"),
        (Do::Fin, "IN|RDNORM|RDHUP"),
        (Do::Nothing, ""),
        (Do::ShutWrite, "IN|HUP|RDNORM|RDHUP"),
        (Do::Nothing, ""),
    ]);
    Table::new(ALL, Trigger::Edge).run(&[
        (Do::Rst, "IN|ERR|HUP|RDNORM|RDHUP"),
        (Do::TakeError, ""),
        (Do::Read(1), ""),
    ]);
}

#[test]
fn data_that_was_read_before_the_poll_is_no_event() {
    let mut table = Table::new(ALL, Trigger::Edge);
    table.act(Do::Data(5));
    table.run(&[(Do::Read(5), ""), (Do::Data(5), "IN|RDNORM")]);
}

#[test]
fn several_arrivals_are_one_event() {
    let mut table = Table::new(ALL, Trigger::Edge);
    table.act(Do::Data(5));
    table.act(Do::Data(5));
    table.run(&[(Do::Fin, "IN|RDNORM|RDHUP"), (Do::Nothing, "")]);
}

#[test]
fn oneshot_reports_once_until_it_is_asked_again() {
    const ONCE: Do = Do::Again(ALL, Trigger::Oneshot);
    Table::new(ALL, Trigger::Oneshot).run(&[
        (Do::Data(1), "IN|RDNORM"),
        (Do::Data(1), ""),
        (ONCE, "IN|RDNORM"),
        (Do::Rst, ""),
        (ONCE, "IN|ERR|HUP|RDNORM|RDHUP"),
        (Do::Nothing, ""),
    ]);
}

#[test]
fn only_what_is_wanted_is_told_and_errors_always() {
    Table::new(Interest::RDHUP, Trigger::Level).run(&[
        (Do::Data(5), ""),
        (Do::Fin, "RDHUP"),
        (Do::ShutWrite, "HUP|RDHUP"),
    ]);
    Table::new(Interest::READ, Trigger::Level).run(&[(Do::Fin, "IN|RDNORM")]);
    Table::new(Interest::ERROR, Trigger::Edge).run(&[
        (Do::Data(5), ""),
        (Do::Rst, "ERR|HUP"),
        (Do::Again(Interest::READ, Trigger::Level), "IN|ERR|HUP|RDNORM"),
    ]);
}

#[test]
fn a_full_buffer_is_reported_below_the_low_water_mark() {
    let mut table = Table::new(ALL, Trigger::Edge);
    // A buffer that was set does not grow with the mark, which is half of it then: of the window.
    table.stream.set_receive_buffer(8 * 1024).unwrap();
    table.act(Do::LowWater(1 << 30));
    let mut got = String::new();
    for _ in 0..200 {
        if got.is_empty() {
            table.act(Do::Data(1460));
            got = poll(&table.poller);
        }
    }
    assert_eq!(got, "IN|RDNORM", "else nobody would ever read");
}

#[test]
fn what_is_ready_when_it_is_registered_is_an_event() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    world.receive([peer.data(b"early")]);
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Oneshot] {
        let poller = Poller::new().unwrap();
        poller.register(&stream, STREAM, ALL, trigger).unwrap();
        assert_eq!(poll(&poller), "IN|RDNORM", "{trigger:?}");
    }
}

#[test]
fn a_listener_is_ready_while_connections_wait() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let level = Poller::new().unwrap();
    let edge = Poller::new().unwrap();
    level.register(&listener, STREAM, Interest::ACCEPT, Trigger::Level).unwrap();
    edge.register(&listener, STREAM, Interest::ACCEPT, Trigger::Edge).unwrap();
    assert_eq!((poll(&level).as_str(), poll(&edge).as_str()), ("", ""));
    for port in [40_000, 40_001] {
        Peer::new(port).shake_hands(&mut world);
        assert_eq!((poll(&level).as_str(), poll(&edge).as_str()), ("IN|RDNORM", "IN|RDNORM"));
    }
    assert_eq!((poll(&level).as_str(), poll(&edge).as_str()), ("IN|RDNORM", ""));
    drop(accept(&listener).unwrap());
    assert_eq!(poll(&level), "IN|RDNORM");
    drop(accept(&listener).unwrap());
    assert_eq!(poll(&level), "");
    world.listeners.close_all();
    assert_eq!(poll(&level), "IN|ERR|HUP|RDNORM", "the stack has stopped");
    drop(listener);
    assert_eq!(poll(&level), "");
}

#[test]
fn the_last_handle_takes_the_registration_with_it() {
    let mut table = Table::new(ALL, Trigger::Level);
    table.act(Do::Data(5));
    let Table { mut world, stream, poller, .. } = table;
    let other = stream.try_clone().unwrap();
    drop(stream);
    assert_eq!(poll(&poller), "IN|RDNORM", "the connection goes on");
    assert_eq!(poller.deregister(&other).map_err(|e| e.kind()), Ok(()));
    poller.register(&other, STREAM, ALL, Trigger::Level).unwrap();
    drop(other);
    assert_eq!(poll(&poller), "");
    world.turn();
    assert_eq!(world.population(), Population::default());
    assert_eq!(poll(&poller), "");
}

#[test]
fn registrations_are_one_per_socket_and_poller() {
    let Table { stream, poller, .. } = Table::new(ALL, Trigger::Level);
    let kind = |result: std::io::Result<()>| result.map_err(|error| error.kind());
    let exists = poller.register(&stream, STREAM, ALL, Trigger::Edge);
    assert_eq!(kind(exists), Err(ErrorKind::AlreadyExists));
    let other = Poller::new().unwrap();
    assert_eq!(
        kind(other.reregister(&stream, STREAM, ALL, Trigger::Edge)),
        Err(ErrorKind::NotFound)
    );
    assert_eq!(kind(other.deregister(&stream)), Err(ErrorKind::NotFound));
    assert_eq!(kind(other.register(&stream, STREAM, ALL, Trigger::Edge)), Ok(()));
    assert_eq!(kind(poller.deregister(&stream)), Ok(()));
    assert_eq!(kind(poller.deregister(&stream)), Err(ErrorKind::NotFound));
    assert_eq!(kind(other.deregister(&stream)), Ok(()));
}

#[test]
fn what_left_and_came_back_is_reported_once() {
    let mut table = Table::new(ALL, Trigger::Level);
    table.act(Do::Data(5));
    assert_eq!(poll(&table.poller), "IN|RDNORM");
    // Still among the ready ones, and on the list too.
    table.act(Do::Data(5));
    table.poller.deregister(&table.stream).unwrap();
    table.poller.register(&table.stream, STREAM, ALL, Trigger::Level).unwrap();
    assert_eq!(poll(&table.poller), "IN|RDNORM");
    table.poller.deregister(&table.stream).unwrap();
    assert_eq!(poll(&table.poller), "");
}

#[test]
fn a_socket_tells_every_poller_it_is_registered_with() {
    let mut table = Table::new(ALL, Trigger::Edge);
    let mut others = Vec::new();
    for _ in 0..3 {
        let poller = Poller::new().unwrap();
        poller.register(&table.stream, STREAM, ALL, Trigger::Edge).unwrap();
        others.push(poller);
    }
    table.act(Do::Data(1));
    assert_eq!(poll(&table.poller), "IN|RDNORM");
    assert!(others.iter().all(|poller| poll(poller) == "IN|RDNORM"));
    // A poller that is gone is not told any more, and its place is used again.
    drop(others);
    table.act(Do::Data(1));
    let next = Poller::new().unwrap();
    next.register(&table.stream, STREAM, ALL, Trigger::Edge).unwrap();
    table.act(Do::Read(9));
    assert_eq!((poll(&next).as_str(), poll(&table.poller).as_str()), ("", ""));
}

/// Many streams of which some are ready, and room for fewer events.
#[test]
fn what_finds_no_room_is_reported_next() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 50);
    let poller = Poller::new().unwrap();
    let mut connections = Vec::new();
    for port in 0..20 {
        let (peer, stream) = Peer::connected(&mut world, 40_000 + port, &listener);
        poller.register(&stream, Token(port.into()), ALL, Trigger::Edge).unwrap();
        connections.push((peer, stream));
    }
    for (peer, _) in connections.iter_mut().step_by(2) {
        world.receive([peer.data(b"x")]);
    }
    let mut events = Events::with_capacity(4);
    let mut tokens = Vec::new();
    for expected in [4, 4, 2, 0] {
        assert_eq!(poller.poll(&mut events, Some(Duration::ZERO)).unwrap(), expected);
        tokens.extend(events.iter().map(|event| event.token().0));
    }
    assert_eq!(tokens, (0..20).step_by(2).collect::<Vec<_>>(), "in the order of their arrival");
}

#[test]
fn a_stack_that_stops_ends_what_polls() {
    let Table { mut world, stream, poller, .. } = Table::new(ALL, Trigger::Edge);
    world.engines[0].stop();
    assert_eq!(poll(&poller), "IN|ERR|HUP|RDNORM|RDHUP");
    assert_eq!(read(&stream, 1), Err(RecvError::Dead));
}

#[test]
fn handles_are_sources_too() {
    fn watch(source: &impl Source) {
        Poller::new().unwrap().register(source, STREAM, ALL, Trigger::Edge).unwrap();
    }
    let table = Table::new(ALL, Trigger::Edge);
    watch(table.stream.handle());
    watch(&table.listener);
}
