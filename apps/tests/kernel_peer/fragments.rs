//! Fragments made by the kernel: a client behind a router whose link to the stack is a narrow one.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    process::Command,
    thread,
    time::Duration,
};

use prequeue::{
    tcp::{Counter, Settings},
    wire::{Flags, FourTuple, Outgoing, ipv6, tcp},
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

use crate::{
    LIMIT, MIB,
    bytes::Bytes,
    harness::scenario,
    lab::{HERE, PORT, eventually, ip, stack_of},
};

/// What the client sends: enough for every shape of burst.
const LEN: u64 = 4 * MIB;

#[test]
fn what_a_router_has_fragmented_is_put_together() {
    scenario("fragments::what_a_router_has_fragmented_is_put_together", LIMIT, || {
        let settings = Settings { ip_reassembly: true, ..Settings::default() };
        let stack = stack_of(|builder| builder.settings(settings).gateway("10.99.0.1"));
        ip("link set pqtap0 mtu 600");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a namespace of our own routes");
        let listener = stack.listen(PORT).expect("the port is free");
        let router = nix::unistd::gettid();
        let client = thread::spawn(move || {
            behind(router);
            let here = SocketAddr::from((HERE, PORT));
            let mut client = std::net::TcpStream::connect_timeout(&here, Duration::from_secs(20))
                .expect("the router knows the way");
            Bytes::new(0).send(&mut client, LEN).expect("all is taken");
            client.flush().expect("there is nothing to flush");
        });
        let (mut stream, _) = listener.accept().expect("the client comes");
        assert_eq!(Bytes::new(0).check_all(&mut stream).expect("the connection lasts"), LEN);
        client.join().expect("the client does not panic");
        let count = |counter| stack.counters().value(counter);
        // Until the client finds that smaller segments fare better.
        eventually("many segments are found to have come in fragments", || {
            let whole = count(Counter::ReasmOKs);
            whole >= 100 && count(Counter::ReasmReqds) >= 2 * whole
        });
        assert_eq!(count(Counter::InErrs) + count(Counter::InHdrErrors), 0);
        eventually("the packet buffers are back", || stack.mbufs_in_use() <= 1024 + 64 + 384);
    });
}

/// The stack's address of IPv6.
const HERE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);

/// Over IPv6 a sender fragments, not a router; the kernel's TCP never does, its raw sockets do.
#[test]
fn what_the_kernel_has_fragmented_over_ipv6_is_put_together() {
    scenario("fragments::what_the_kernel_has_fragmented_over_ipv6_is_put_together", LIMIT, || {
        let settings = Settings { ip_reassembly: true, ..Settings::default() };
        let address = format!("{HERE6}/64");
        let stack = stack_of(|builder| builder.settings(settings).address(address));
        ip("address add fd00:99::1/64 dev pqtap0 nodad");
        // What a segment must carry besides would have to be known.
        fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0").expect("a namespace of our own");
        let listener = stack.listen(PORT).expect("the port is free");
        let raw =
            socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::TCP)).expect("root can");
        let here = SocketAddr::from((HERE6, PORT));
        let client = std::net::TcpStream::connect_timeout(&here, Duration::from_secs(20))
            .expect("it is accepted");
        let (mut stream, peer) = listener.accept().expect("the client comes");

        // The answer to the SYN says where the stream begins, both ways.
        let mut answer = [0; 200];
        let (len, _) = recv(&raw, &mut answer, RecvFlags::empty()).expect("it has come here, too");
        let number =
            |at: usize| u32::from_be_bytes(*answer[at..len].first_chunk().expect("it is there"));
        let (seq, ack) = (number(8), number(4).wrapping_add(1));
        let mut payload = Vec::new();
        Bytes::new(6).send(&mut payload, 4000).expect("memory takes all");
        let tuple = FourTuple {
            local_addr: peer.ip(),
            remote_addr: HERE6.into(),
            local_port: peer.port(),
            remote_port: PORT,
        };
        let out = Outgoing { seq, ack, flags: Flags::ACK, window: 1000, ..Outgoing::default() };
        let mut datagram = vec![0; 100 + payload.len()];
        let len = tcp::emit(&mut datagram, &tuple, &out, 0, &payload);
        let to = SocketAddrV6::new(HERE6, 0, 0, 0);
        sendto(&raw, &datagram[ipv6::HEADER_LEN..len], SendFlags::empty(), &to)
            .expect("it is sent in fragments");

        let mut received = vec![0; 4000];
        stream.read_exact(&mut received).expect("the connection lasts");
        assert!(received == payload, "the bytes are those that were sent");
        // Of 1448 bytes each, but for the last.
        let counters = [(Counter::ReasmReqds, 3), (Counter::ReasmOKs, 1), (Counter::ReasmFails, 0)];
        eventually("the fragments are counted", || {
            let now = stack.counters();
            counters.iter().all(|(counter, n)| now.value(*counter) == *n)
        });
        drop(client);
    });
}

/// Gives the calling thread a network of its own behind that of the thread `router`, and has it send without the bit that
/// forbids fragments.
fn behind(router: nix::unistd::Pid) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root can");
    let me = nix::unistd::gettid().to_string();
    let target = format!("--net=/proc/{router}/ns/net");
    let router = |arguments: &str| {
        let status =
            Command::new("nsenter").arg(&target).arg("ip").args(arguments.split(' ')).status();
        assert!(status.expect("nsenter is installed").success(), "ip {arguments}");
    };
    router(&format!("link add pqnear type veth peer name pqfar netns {me}"));
    router("address add 10.98.0.1/24 dev pqnear");
    router("link set pqnear up");
    ip("address add 10.98.0.9/24 dev pqfar");
    ip("link set pqfar up");
    ip("route add default via 10.98.0.1");
    fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").expect("a namespace of our own");
}
