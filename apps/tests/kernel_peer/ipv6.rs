//! The kernel's TCP over IPv6: neighbour discovery, a long stream, both families at one listener.

use std::{
    io::Write,
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use prequeue::{ListenOptions, Stack, lcore::fault::Faults, tcp::Counter};

use crate::{
    LIMIT, MIB,
    bytes::Bytes,
    harness::scenario,
    lab::{HERE, PORT, eventually, ip, stack_at},
};

/// The stack's address.
const HERE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);

/// A stack with addresses of both families, and the kernel's end of the tap.
fn both() -> Stack {
    let stack = stack_at(&[&format!("{HERE}/24"), &format!("{HERE6}/64")], Faults::default());
    // Without looking first whether somebody has it: nobody has.
    ip("address add fd00:99::1/64 dev pqtap0 nodad");
    stack
}

fn connect(addr: impl Into<SocketAddr>) -> TcpStream {
    TcpStream::connect_timeout(&addr.into(), Duration::from_secs(20)).expect("it is accepted")
}

#[test]
fn one_gibibyte_arrives_bit_for_bit_over_ipv6() {
    scenario("ipv6::one_gibibyte_arrives_bit_for_bit_over_ipv6", LIMIT, || {
        let stack = both();
        let listener = stack.listen(PORT).expect("the port is free");
        let client = thread::spawn(|| {
            let mut client = connect((HERE6, PORT));
            Bytes::new(6).send(&mut client, 1024 * MIB).expect("all is taken");
            client.shutdown(Shutdown::Write).expect("the connection lasts");
        });
        let (mut stream, peer) = listener.accept().expect("the client comes");
        assert!(
            matches!(peer, SocketAddr::V6(peer) if peer.ip().segments()[..2] == [0xfd00, 0x99])
        );
        let n = Bytes::new(6).check_all(&mut stream).expect("the connection lasts");
        assert_eq!(n, 1024 * MIB);
        client.join().expect("the client does not panic");
        let counters = stack.counters();
        for counter in [Counter::InErrs, Counter::InHdrErrors, Counter::InAddrErrors] {
            assert_eq!(counters.value(counter), 0, "{}", counter.name());
        }
        assert!(counters.value(Counter::TCPHPHits) > 10_000, "few segments went the short way");
    });
}

#[test]
fn one_listener_takes_both_families() {
    scenario("ipv6::one_listener_takes_both_families", LIMIT, || {
        let stack = both();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let listener = stack.listen_at(any, ListenOptions::default()).expect("the port is free");
        assert_eq!(listener.local_addr().ok(), Some(any));
        for local in [SocketAddr::from((HERE, PORT)), (HERE6, PORT).into()] {
            let mut client = connect(local);
            client.write_all(b"hello").expect("the connection lasts");
            client.shutdown(Shutdown::Write).expect("the connection lasts");
            let (mut stream, peer) = listener.accept().expect("the client comes");
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stream, &mut text).expect("the connection lasts");
            assert_eq!(text, "hello");
            // As in Linux, what listens over IPv6 tells addresses of IPv6.
            let SocketAddr::V6(peer) = peer else { panic!("{peer} is of IPv4") };
            let is_mapped = peer.ip().to_ipv4_mapped().is_some();
            assert_eq!(is_mapped, local.is_ipv4(), "{peer}");
            let form = |ip| match ip {
                std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                std::net::IpAddr::V6(ip) => ip,
            };
            let ours = stream.local_addr().expect("it has one");
            assert_eq!((form(ours.ip()), ours.is_ipv6()), (form(local.ip()), true));
        }
    });
}

#[test]
fn the_link_local_address_is_answered() {
    scenario("ipv6::the_link_local_address_is_answered", LIMIT, || {
        let stack = both();
        let listener = stack.listen(PORT).expect("the port is free");
        let ours = stack.interface().link_local().expect("there is IPv6");
        let asked = |arguments: &str| {
            let output = Command::new("ip").args(arguments.split(' ')).output().expect("it runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let link = asked("-o link show pqtap0");
        let scope = link.split(':').next().and_then(|index| index.parse().ok());
        let scope = scope.unwrap_or_else(|| panic!("the tap has a number: {link}"));
        let addr = SocketAddr::V6(std::net::SocketAddrV6::new(ours, PORT, 0, scope));
        // The kernel may still be trying whether its own address is free.
        let mut client = None;
        eventually("the link-local address answers", || {
            client = TcpStream::connect_timeout(&addr, Duration::from_secs(2)).ok();
            client.is_some()
        });
        let (stream, peer) = listener.accept().expect("the client comes");
        assert!(peer.is_ipv6());
        assert_eq!(stream.local_addr().ok().map(|local| local.ip()), Some(ours.into()));
    });
}
