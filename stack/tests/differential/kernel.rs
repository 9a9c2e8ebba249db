//! The kernel's side: a network namespace of the calling thread, a TUN device in it, a listener.
//!
//! What is written to the device has gone through the kernel's TCP when the call returns, so that
//! answers which no timer delays can be read at once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use smoltcp::phy::{Device, Medium, RxToken, TunTapInterface, TxToken};
use smoltcp::time::Instant as Moment;

use crate::packet::{Answer, SYN, Segment};
use crate::scenario::{Config, Got, How, Read};
use crate::seen::Ready;
use crate::side::{Side, peer, us};

/// A port that no scenario uses.
const NOBODYS: u16 = 1000;

/// How long addresses may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// POLLIN, POLLPRI, POLLRDNORM and POLLRDHUP; POLLERR and POLLHUP are always told.
const READING: u16 = 0x2043;

/// Everything that is the same for all scenarios. What the kernel remembers of a peer from one
/// connection to the next would make a scenario depend on those before it.
const SYSCTLS: [(&str, &str); 7] = [
    ("tcp_no_metrics_save", "1"),
    ("tcp_fastopen", "0"),
    ("tcp_ecn", "2"),
    ("tcp_max_tw_buckets", "262144"),
    ("tcp_challenge_ack_limit", "2147483647"),
    ("tcp_max_syn_backlog", "100000"),
    ("icmp_ratelimit", "0"),
];

/// The kernel, as the thread that made it sees it.
pub struct Kernel {
    tun: TunTapInterface,
    set: Vec<(&'static str, String)>,
    listener: Option<OwnedFd>,
    stream: Option<OwnedFd>,
}

impl Kernel {
    /// Moves the calling thread to a namespace of its own.
    ///
    /// # Errors
    /// Says what is missing: the right to make namespaces, /dev/net/tun, or iproute2.
    pub fn new() -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("no network namespace can be made: {error}"))?;
        let tun = TunTapInterface::new("tun0", Medium::Ip)
            .map_err(|error| format!("no TUN device can be made: {error}"))?;
        let mut kernel = Self { tun, set: Vec::new(), listener: None, stream: None };
        let [old, new] = [false, true].map(us);
        ip(&["addr", "add", &format!("{old}/16"), "dev", "tun0"])?;
        // Nobody is asked whether the address is free, and no router for another.
        kernel.sysctl("../ipv6/conf/tun0/accept_ra", "0");
        ip(&["addr", "add", &format!("{new}/64"), "dev", "tun0", "nodad"])?;
        ip(&["link", "set", "tun0", "up"])?;
        for (name, value) in SYSCTLS {
            kernel.sysctl(name, value);
        }
        [false, true].into_iter().try_for_each(|ipv6| kernel.wait_for_route(ipv6))?;
        Ok(kernel)
    }

    /// Waits until a closed port answers: the kernel finishes addresses of IPv6 in the background.
    fn wait_for_route(&mut self, ipv6: bool) -> Result<(), String> {
        let from = SocketAddr::new(peer(ipv6), NOBODYS);
        let to = SocketAddr::new(us(ipv6), NOBODYS);
        let syn = Segment { flags: SYN, ..Segment::default() }.packet(from, to);
        for _ in 0..PATIENCE.as_millis() {
            self.receive(&syn, 0);
            if self.take_sent().iter().any(|packet| Answer::parse(packet, NOBODYS).is_some()) {
                return Ok(());
            }
            sleep(Duration::from_millis(1));
        }
        Err(format!("nobody answers at {to}"))
    }

    /// Sets what is not so already.
    fn sysctl(&mut self, name: &'static str, value: &str) {
        if self.set.iter().any(|(known, set)| *known == name && set == value) {
            return;
        }
        let path = format!("/proc/sys/net/ipv4/{name}");
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.set.retain(|(known, _)| *known != name);
        self.set.push((name, value.to_owned()));
    }

    /// What ss tells of the connections: for reports.
    pub fn about(&self) -> String {
        let told = Command::new("ss").args(["-Htanmei"]).output();
        told.map_or(String::new(), |told| String::from_utf8_lossy(&told.stdout).into_owned())
    }

    fn stream(&self) -> Option<&OwnedFd> {
        self.stream.as_ref()
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let status = Command::new("ip").args(args).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip {}: {status}", args.join(" "))),
        Err(error) => Err(format!("ip: {error}")),
    }
}

impl Side for Kernel {
    fn start(&mut self, config: &Config, port: u16, _now: u64) {
        let bit = |on: bool| if on { "1" } else { "0" };
        self.sysctl("tcp_syncookies", if config.cookies { "2" } else { "0" });
        self.sysctl("tcp_moderate_rcvbuf", bit(config.moderate));
        self.sysctl("tcp_dsack", bit(config.dsack));
        self.sysctl("tcp_stdurg", bit(config.stdurg));
        self.sysctl("tcp_rfc1337", bit(config.rfc1337));
        self.sysctl("tcp_invalid_ratelimit", &config.ratelimit.as_millis().to_string());
        self.sysctl("tcp_rmem", &config.rmem.map(|n| n.to_string()).join(" "));
        self.stream = None;
        self.listener = None;
        let family = if config.ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let listener = net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        sockopt::set_socket_reuseaddr(&listener, true).expect("SO_REUSEADDR");
        if let Some(bytes) = config.rcvbuf {
            sockopt::set_socket_recv_buffer_size(&listener, bytes as usize / 2).expect("SO_RCVBUF");
        }
        net::bind(&listener, &SocketAddr::new(us(config.ipv6), port)).expect("the port");
        net::listen(&listener, 16).expect("listen");
        self.listener = Some(listener);
    }

    fn receive(&mut self, packet: &[u8], _now: u64) {
        let token = self.tun.transmit(Moment::ZERO).expect("a device that takes all");
        token.consume(packet.len(), |buf| buf.copy_from_slice(packet));
    }

    fn pass(&mut self, _now: u64) {}

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some((rx, _)) = self.tun.receive(Moment::ZERO) {
            sent.push(rx.consume(<[u8]>::to_vec));
        }
        sent
    }

    fn accept(&mut self) -> bool {
        let Some(listener) = &self.listener else { return false };
        match net::accept(listener) {
            Ok(stream) => {
                ioctl_fionbio(&stream, true).expect("O_NONBLOCK");
                self.stream = Some(stream);
                true
            }
            Err(_) => false,
        }
    }

    fn recv(&mut self, read: Read) -> Got {
        let Some(stream) = self.stream() else { return Got::NoSocket };
        let mut flags = RecvFlags::DONTWAIT;
        flags.set(RecvFlags::PEEK, read.peek);
        flags.set(RecvFlags::OOB, read.oob);
        flags.set(RecvFlags::WAITALL, read.waitall);
        flags.set(RecvFlags::TRUNC, read.trunc);
        let mut buf = vec![0; read.len];
        match net::recv(stream, &mut buf, flags) {
            Ok((_, n)) => {
                buf.truncate(n);
                Got::Bytes(buf)
            }
            Err(errno) => Got::Error(io::Error::from(errno).kind()),
        }
    }

    fn unread(&mut self) -> Option<u64> {
        self.stream().map(|stream| ioctl_fionread(stream).unwrap_or(0))
    }

    fn rcvbuf(&mut self) -> Option<u64> {
        let stream = self.stream()?;
        Some(sockopt::socket_recv_buffer_size(stream).expect("SO_RCVBUF") as u64)
    }

    fn ready(&mut self) -> Option<Ready> {
        let mut polled = [PollFd::new(self.stream()?, PollFlags::from_bits_retain(READING))];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll");
        Some(Ready(u32::from(polled[0].revents().bits())))
    }

    fn shutdown(&mut self, how: How) {
        let Some(stream) = self.stream() else { return };
        let how = match how {
            How::Read => net::Shutdown::Read,
            How::Write => net::Shutdown::Write,
            How::Both => net::Shutdown::Both,
        };
        // It fails if the connection is over.
        let _ = net::shutdown(stream, how);
    }

    fn close(&mut self, reset: bool) {
        if let (true, Some(stream)) = (reset, self.stream()) {
            sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("SO_LINGER");
        }
        self.stream = None;
    }

    fn take_error(&mut self) -> Got {
        let Some(stream) = self.stream() else { return Got::NoSocket };
        match sockopt::socket_error(stream) {
            Ok(Err(errno)) => Got::Error(io::Error::from(errno).kind()),
            Ok(Ok(())) | Err(Errno::INVAL) => Got::Bytes(Vec::new()),
            Err(errno) => panic!("SO_ERROR: {errno}"),
        }
    }

    fn set_quickack(&mut self, on: bool) {
        if let Some(stream) = self.stream() {
            let _ = sockopt::set_tcp_quickack(stream, on);
        }
    }

    fn set_inline(&mut self, on: bool) {
        if let Some(stream) = self.stream() {
            sockopt::set_socket_oobinline(stream, on).expect("SO_OOBINLINE");
        }
    }

    fn end(&mut self) {
        self.stream = None;
        self.listener = None;
    }
}
