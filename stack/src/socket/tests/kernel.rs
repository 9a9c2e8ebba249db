//! The kernel's own recv as the oracle: the same calls on a connection over loopback and on ours.
//!
//! Whatever is sent, urgent or not, and however it is looked at, discarded and read: lengths, bytes
//! and errors are the kernel's, and so is what FIONREAD says. But for a mark that takes the place of
//! another: whether somebody stood at the old one the kernel decides at that moment, we at the next read.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags as Msg, SendFlags, recv, send, sockopt};

use super::hand::{Outcome, open};
use crate::socket::{RecvError, RecvFlags};
use crate::tcp::tcb::ConnError;

#[derive(Clone, Debug)]
enum Op {
    Send(usize),
    /// The last of so many bytes is urgent.
    SendUrgent(usize),
    Recv(usize, u8),
    Inline(bool),
    ShutRead,
    End(End),
}

/// How the sender ends; nothing is sent afterwards.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
}

/// Flags by bit; DONTWAIT is added to all.
const FLAGS: [(RecvFlags, Msg); 4] = [
    (RecvFlags::PEEK, Msg::PEEK),
    (RecvFlags::TRUNC, Msg::TRUNC),
    (RecvFlags::WAITALL, Msg::WAITALL),
    (RecvFlags::OOB, Msg::OOB),
];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..12_usize).prop_map(Op::Send),
        3 => (1..6_usize).prop_map(Op::SendUrgent),
        9 => (0..12_usize, 0..8_u8).prop_map(|(len, flags)| Op::Recv(len, flags)),
        3 => (0..3_usize, prop_oneof![Just(8_u8), Just(9), Just(10)])
            .prop_map(|(len, flags)| Op::Recv(len, flags)),
    ];
    let end = prop_oneof![Just(Op::End(End::Fin)), Just(Op::End(End::Reset)), Just(Op::ShutRead),];
    let recv = (0..12_usize, 0..8_u8).prop_map(|(len, flags)| Op::Recv(len, flags));
    // Set once: the kernel decides when a mark is announced, we when somebody reads.
    let inline = any::<bool>().prop_map(Op::Inline);
    (inline, prop::collection::vec(op, 1..40), end, prop::collection::vec(recv, 0..6)).prop_map(
        |(inline, ops, end, rest)| {
            [inline].into_iter().chain(ops).chain([end]).chain(rest).collect()
        },
    )
}

/// Bytes that were read, or an error; and what FIONREAD says afterwards.
type Answer = (Result<(usize, Vec<u8>), Errno>, u64);

/// Both sides of a script; the kernel is given `pause` to pass on what is sent.
fn run(script: &[Op], pause: Duration) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Some(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    client.as_ref().unwrap().set_nodelay(true).unwrap();
    let (kernel, _) = listener.accept().unwrap();
    let (mut hand, ours) = open();

    let mut next = 0_u8;
    let mut bytes = |n: usize| -> Vec<u8> {
        (0..n)
            .map(|_| {
                next = next.wrapping_add(1).max(1);
                next
            })
            .collect()
    };
    for (nth, op) in script.iter().enumerate() {
        match *op {
            Op::Send(n) => {
                let bytes = bytes(n);
                client.as_mut().unwrap().write_all(&bytes).unwrap();
                hand.data(&bytes);
                thread::sleep(pause);
            }
            // One mark at a time: see the head.
            Op::SendUrgent(n) if ours.lock().connection().urgent().is_some() => {
                let bytes = bytes(n);
                client.as_mut().unwrap().write_all(&bytes).unwrap();
                hand.data(&bytes);
                thread::sleep(pause);
            }
            Op::SendUrgent(n) => {
                let bytes = bytes(n);
                send(client.as_ref().unwrap(), &bytes, SendFlags::OOB).unwrap();
                hand.urgent(&bytes, n as u16);
                thread::sleep(pause);
            }
            Op::Inline(inline) => {
                sockopt::set_socket_oobinline(&kernel, inline).unwrap();
                ours.set_out_of_band_inline(inline);
            }
            Op::ShutRead => {
                kernel.shutdown(Shutdown::Read).unwrap();
                ours.shutdown(Shutdown::Read).unwrap();
                hand.poll();
            }
            Op::End(End::Fin) => {
                client.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
                hand.fin();
                thread::sleep(pause);
            }
            Op::End(End::Reset) => {
                let client = client.take().unwrap();
                sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                drop(client);
                hand.rst();
                thread::sleep(pause);
            }
            Op::Recv(len, bits) => {
                let (mut flags, mut msg) = (RecvFlags::DONTWAIT, Msg::DONTWAIT);
                for (bit, (ours, theirs)) in FLAGS.into_iter().enumerate() {
                    if bits >> bit & 1 != 0 {
                        flags = flags.with(ours);
                        msg |= theirs;
                    }
                }
                let expected: Answer = {
                    let mut buf = vec![0; len];
                    let result = recv(&kernel, &mut buf[..], msg).map(|(_, n)| n);
                    let inq = ioctl_fionread(&kernel).unwrap();
                    (result.map(|n| (n, buf)), inq)
                };
                let got: Answer = {
                    let (outcome, mut buf) = hand.recv(&ours, len, flags);
                    buf.resize(len, 0);
                    let result = match outcome {
                        Outcome::Bytes(n) => Ok((n, buf)),
                        Outcome::Waits => return Err(format!("op {nth} waits")),
                        Outcome::Fails(error) => Err(errno(error)),
                    };
                    (result, ours.readable().into())
                };
                if got != expected {
                    return Err(format!("op {nth} {op:?}: {got:?}, in Linux {expected:?}"));
                }
            }
        }
    }
    Ok(())
}

fn errno(error: RecvError) -> Errno {
    match error {
        RecvError::WouldBlock => Errno::AGAIN,
        RecvError::Interrupted => Errno::INTR,
        RecvError::NoUrgentByte => Errno::INVAL,
        RecvError::NotConnected => Errno::NOTCONN,
        RecvError::Connection(ConnError::Reset) => Errno::CONNRESET,
        RecvError::Connection(ConnError::BrokenPipe) => Errno::PIPE,
        RecvError::Connection(ConnError::TimedOut) => Errno::TIMEDOUT,
        RecvError::Connection(ConnError::Path(error)) => Errno::from_raw_os_error(error.errno()),
        RecvError::Deadlock => Errno::DEADLK,
        RecvError::Dead => Errno::CONNABORTED,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn reads_return_what_the_kernels_do(script in ops()) {
        // A busy machine may take a while to pass on what is sent: a difference must stay.
        let hasty = run(&script, Duration::ZERO);
        if hasty.is_err() {
            let patient = run(&script, Duration::from_millis(20));
            prop_assert!(patient.is_ok(), "{}", patient.unwrap_err());
        }
    }
}
