//! Fragments made by the kernel: a client behind a router whose link to the stack is a narrow one.

use std::{fs, io::Write, net::SocketAddr, process::Command, thread, time::Duration};

use prequeue::tcp::{Counter, Settings};

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
        let whole = count(Counter::ReasmOKs);
        assert!(whole >= 100 && count(Counter::ReasmReqds) >= 2 * whole, "{whole}");
        assert_eq!(count(Counter::InErrs) + count(Counter::InHdrErrors), 0);
        eventually("the packet buffers are back", || stack.mbufs_in_use() <= 1024 + 64 + 384);
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
