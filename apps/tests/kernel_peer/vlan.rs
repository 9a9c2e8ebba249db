//! A stack that is a member of a VLAN, and the kernel, which is in that and in another.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use prequeue::tcp::Counter;

use crate::{
    LIMIT, MIB,
    harness::scenario,
    lab::{HERE, PORT, eventually, ip, stack_of},
    one_stream,
};

#[test]
fn a_stream_in_a_vlan_arrives_bit_for_bit() {
    scenario("vlan::a_stream_in_a_vlan_arrives_bit_for_bit", LIMIT, || {
        let probe = "link add link lo name pqprobe type vlan id 1".split(' ');
        let output = Command::new("ip").args(probe).output().expect("ip is installed");
        if String::from_utf8_lossy(&output.stderr).contains("Unknown device type") {
            eprintln!("passed over: this kernel knows no VLANs");
            return;
        }
        let stack = stack_of(|builder| builder.vlan(77));
        // The kernel's end is in two VLANs, and the way to the stack in ours.
        ip("address del 10.99.0.1/24 dev pqtap0");
        for (name, id, address) in [("pqours", 77, "10.99.0.1/24"), ("pqother", 78, "10.98.0.1/24")]
        {
            ip(&format!("link add link pqtap0 name {name} type vlan id {id}"));
            ip(&format!("address add {address} dev {name}"));
            ip(&format!("link set {name} up"));
        }
        one_stream(&stack, 64 * MIB);
        let counters = stack.counters();
        for counter in [Counter::InErrs, Counter::InHdrErrors, Counter::InAddrErrors] {
            assert_eq!(counters.value(counter), 0, "{}", counter.name());
        }
        // Most of the segments went the short way, as without a tag.
        assert!(counters.value(Counter::TCPHPHits) > 10_000, "few segments went the short way");
        // What is outside is not heard, not even where it asks for our address.
        let before = counters.value(Counter::OtherVlan);
        ip(&format!("route add {HERE} dev pqother"));
        assert!(try_connect_within(Duration::from_secs(2)).is_err(), "nobody answers there");
        eventually("what is of another VLAN is counted", || {
            stack.counters().value(Counter::OtherVlan) > before
        });
    });
}

/// A client's connection that does not wait for long.
fn try_connect_within(limit: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((HERE, PORT)), limit)
}
