//! A stack on a tap, the kernel's end of it, and clients.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use prequeue::{LocalStack, Stack, StackBuilder, lcore::fault::Faults, tcp::Settings};

use crate::harness::{cpus, memory_args};

/// The stack's address.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The TCP port that the scenarios listen on.
pub const PORT: u16 = 7000;

/// Starts a stack with this many lcores, each with a queue of the tap, and gives the kernel's end
/// its address.
pub fn stack(lcores: usize, faults: Faults) -> Stack {
    stack_with(lcores, faults, Settings::default())
}

/// The same with settings of its own.
pub fn stack_with(lcores: usize, faults: Faults, settings: Settings) -> Stack {
    start(builder(lcores).faults(faults).settings(settings))
}

/// A stack of one lcore that is made a little differently.
pub fn stack_of(change: impl FnOnce(StackBuilder) -> StackBuilder) -> Stack {
    start(change(builder(1)))
}

fn start(builder: StackBuilder) -> Stack {
    let stack = builder.start().unwrap_or_else(|error| panic!("the stack starts: {error}"));
    set_up_peer();
    stack
}

/// The same with a single lcore and these addresses.
pub fn stack_at(addresses: &[&str], faults: Faults) -> Stack {
    let builder = builder_without_address(1).faults(faults);
    let builder = addresses.iter().copied().fold(builder, StackBuilder::address);
    let stack = builder.start().unwrap_or_else(|error| panic!("the stack starts: {error}"));
    set_up_peer();
    stack
}

/// Starts a stack that the calling thread polls.
pub fn local_stack() -> LocalStack {
    let builder = builder(1);
    let stack = builder.start_local().unwrap_or_else(|error| panic!("the stack starts: {error}"));
    assert!(stack.pin(), "a CPU that this process may run on");
    set_up_peer();
    stack
}

fn builder(lcores: usize) -> StackBuilder {
    builder_without_address(lcores).address(format!("{HERE}/24"))
}

fn builder_without_address(lcores: usize) -> StackBuilder {
    // The last CPUs poll; the first is the client's and the readers' as far as there are enough.
    let cpus = cpus();
    assert!(cpus.len() >= lcores, "{lcores} lcores need as many CPUs; this machine has {cpus:?}");
    let list: Vec<_> = cpus[cpus.len() - lcores..].iter().map(ToString::to_string).collect();
    let list = list.join(",");
    let fixed = ["-l", &list, "--no-pci", "--no-telemetry", "--vdev", "net_tap0,iface=pqtap0"];
    let mut eal: Vec<String> = fixed.map(String::from).into();
    eal.extend(memory_args());
    Stack::builder().eal_args(eal)
}

/// Gives the kernel's end of the tap its address.
pub fn set_up_peer() {
    ip("address add 10.99.0.1/24 dev pqtap0");
    // Room for what many clients send while the lcore is off its CPU: else the tap drops.
    ip("link set pqtap0 txqueuelen 20000");
    ip("link set pqtap0 up");
}

/// Runs iproute2.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip is installed (scripts/install-deps)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A client's connection, by the kernel.
pub fn connect() -> TcpStream {
    try_connect(PORT).expect("the stack accepts connections")
}

/// A client's connection to some port of the stack.
pub fn try_connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((HERE, port)), Duration::from_secs(20))
}

/// Waits until `done`.
///
/// # Panics
/// It takes longer than ten seconds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "in vain for 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
