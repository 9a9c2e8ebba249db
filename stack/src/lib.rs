//! A poll-mode TCP receive stack on DPDK.
//!
//! Lcores take mbufs from the RX queues of a port, run TCP on them in place, and pass in-sequence
//! bytes to application threads through lock-free rings. What an application sees of it is in the
//! manner of [`std::net`]; what a peer sees of it is Linux's receive side: the same ACKs, windows and
//! limits, with settings and counters under the same names.
//!
//! ```no_run
//! # #[cfg(feature = "dpdk")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::io::Read;
//!
//! use prequeue::Stack;
//!
//! // CPU 1 polls the NIC; this thread, and others if it likes, accept and read.
//! let stack = Stack::builder()
//!     .eal_args(["-l", "1", "-a", "0000:01:00.0"])
//!     .address("10.99.0.2/24")
//!     .start()?;
//! let listener = stack.listen(7000)?;
//! let (mut stream, peer) = listener.accept()?;
//! let mut bytes = Vec::new();
//! stream.read_to_end(&mut bytes)?;
//! println!("{} bytes from {peer}", bytes.len());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "dpdk"))]
//! # fn main() {}
//! ```
//!
//! # What it will not do
//!
//! It does not open connections and does not send data; IPv4 only; receive buffers do not grow by
//! themselves. All of that is planned. It is no general stack (no UDP, no routing), does not share a
//! NIC with the kernel, and its lcores never sleep.
//!
//! # Threads
//!
//! * **Lcores** are threads of the stack, one per CPU of the EAL's `-l`, each with a queue pair of the
//!   port. They alone run TCP, and never wait for anybody.
//! * **Application threads** accept, read, shut down and close, through `TcpListener` and
//!   `TcpStream`. Both may be shared by any number of threads. A thread that waits spins for some ten
//!   microseconds and then sleeps; a busy reader takes in-sequence data from a ring without a lock,
//!   most directly through [`socket::Reader`].
//! * Or none of this: a thread of the application polls and reads by itself, and nothing is shared
//!   (`LocalStack`).
//! * Bytes are acknowledged when they have been processed, whether or not anybody reads; a reader that
//!   falls behind closes the window, and the peer waits.
//! * When the `Stack` is stopped or dropped, calls that wait and all later ones fail with
//!   [`ConnectionAborted`](std::io::ErrorKind::ConnectionAborted).
//!
//! # Where to look
//!
//! `stack` has the builder and every reason why it may not start, `local` the stack of a single thread;
//! [`socket`] has streams, listeners and what is lent uncopied;
//! [`tcp::Settings`] and [`tcp::Counter`] what can be set and counted; [`lcore::fault`] a bad wire for
//! tests. The rest is the inside, public for those who drive it themselves: [`lcore::Engine`] is a
//! whole stack without device, thread or clock, and [`tcp`] the protocol core, which does no I/O.
//!
//! # Features
//!
//! * `dpdk` (default): devices, and with them `stack` and `dpdk`. Without it nothing of DPDK is
//!   needed to build and test the rest.
//! * `mio`: a [`socket::Poller`] is an event source of mio's.
//! * `tokio`: `socket::AsyncTcpStream` and `socket::AsyncTcpListener` for tasks, woken by a
//!   `socket::Reactor`.
//! * `static`: DPDK is linked into the binary, drivers included.
#![deny(unsafe_code)]

pub mod buf;
#[cfg(any(feature = "dpdk", test))]
#[allow(unsafe_code)] // the safe wrapper over dpdk-sys
pub mod dpdk;
#[cfg(not(loom))]
pub mod lcore;
#[cfg(all(feature = "dpdk", not(loom)))]
pub mod local;
#[cfg(all(feature = "dpdk", not(loom)))]
mod sight;
pub mod socket;
#[cfg(all(feature = "dpdk", not(loom)))]
pub mod stack;
pub mod tcp;
pub mod time;
pub mod watch;
pub mod wire;

#[cfg(all(feature = "dpdk", not(loom)))]
pub use local::{LocalListener, LocalStack, LocalStream};
#[cfg(all(feature = "dpdk", not(loom)))]
pub use stack::{
    ListenError, ListenOptions, Stack, StackBuilder, StartError, TcpListener, TcpStream,
};

/// The README's examples are compiled with the others.
#[cfg(all(doctest, feature = "dpdk"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
