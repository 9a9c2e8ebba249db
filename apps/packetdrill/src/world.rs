//! The engine under virtual time, its wire, and the sockets of a script.
//!
//! Everything here is behind the clock's one lock; the calls that a script makes are in `calls.rs`.
//! The engine is made when an address is known: that of the first listener, or the destination of
//! the first packet. Nothing here waits.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use prequeue::buf::HeapBuf;
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::{Engine, EngineConfig, ListenOptions, Listeners, engines};
use prequeue::socket::TcpListener;
use prequeue::tcp::Settings;
use prequeue::tcp::isn::Secret;
use prequeue::time::Instant;

use crate::address::Head;
use crate::clock::Timed;
use crate::device::{Device, Packet};
use crate::fds::Fds;
use crate::flags::Flags;
use crate::poll::Epoll;
use crate::socket::Socket;
use crate::sysctl::Sysctl;

/// packetdrill drives one connection at a time, and leaves some behind.
const MAX_CONNECTIONS: u32 = 256;

/// What a number stands for.
#[derive(Debug)]
pub enum File {
    /// A TCP socket.
    Socket(Box<Socket>),
    /// An epoll instance.
    Epoll(Epoll),
    /// One end of a kernel's pipe.
    Pipe,
}

/// Everything that a script can see.
#[derive(Debug)]
pub struct World {
    flags: Flags,
    /// The files of the script's settings and counters.
    pub sysctl: Sysctl,
    /// The settings as last read.
    pub settings: Settings,
    /// What is open.
    pub files: Fds<File>,
    net: Option<Net>,
}

/// The stack.
#[derive(Debug)]
struct Net {
    engine: Engine<HeapBuf>,
    listeners: Listeners<HeapBuf>,
    device: Device,
}

impl World {
    /// A world without sockets.
    pub fn new(flags: Flags, sysctl: Sysctl) -> Self {
        let settings = sysctl.settings();
        Self { flags, sysctl, settings, files: Fds::default(), net: None }
    }

    /// Reads the settings again: a script may have changed any at any time.
    pub fn reload(&mut self) {
        self.settings = self.sysctl.settings();
    }

    /// Reads the settings again, for what an application does with a connection.
    pub fn reload_for_calls(&mut self) {
        self.reload();
        let settings = self.settings.clone();
        if let Some(net) = &mut self.net {
            *net.engine.settings_mut() = settings;
        }
    }

    /// Begins to listen; `None` if somebody does already.
    pub fn listen(
        &mut self,
        local: SocketAddr,
        options: ListenOptions,
    ) -> Option<TcpListener<HeapBuf>> {
        let backlog = options.backlog.min(self.settings.somaxconn);
        let net = self.net(local.ip());
        let queue =
            net.listeners.listen_with(local.port(), ListenOptions { backlog, ..options })?;
        Some(TcpListener::new(queue, local))
    }

    /// The options of a listener have changed.
    pub fn change(&mut self, local: SocketAddr, options: ListenOptions) {
        self.net(local.ip()).listeners.change(local.port(), options);
    }

    /// A packet arrives.
    pub fn receive(&mut self, packet: &[u8], now: Instant) {
        let Some(head) = Head::of(packet) else { return };
        self.reload();
        let settings = self.settings_of(head.to.port());
        let frame = Device::frame(packet, &head, self.flags.mss);
        let net = self.net(head.to.ip());
        *net.engine.settings_mut() = settings;
        net.device.set_now(now);
        net.engine.input(&mut [Some(frame)], now, &mut net.device);
        self.run(now);
    }

    /// The oldest packet that has left.
    pub fn take_sent(&mut self) -> Option<Packet> {
        self.net.as_mut()?.device.take_sent()
    }

    /// The socket under a number.
    pub fn socket(&mut self, fd: RawFd) -> Result<&mut Socket, rustix::io::Errno> {
        match self.files.find_mut(fd)? {
            File::Socket(socket) => Ok(socket),
            File::Epoll(_) | File::Pipe => Err(rustix::io::Errno::NOTSOCK),
        }
    }

    /// The settings as they were for the listener on a port: a socket has the buffer with which it was made,
    /// and so have those that are accepted from it.
    fn settings_of(&mut self, port: u16) -> Settings {
        let mut settings = self.settings.clone();
        let listening = self.files.iter_mut().find_map(|(_, file)| match file {
            File::Socket(socket) if socket.listens_on(port) => Some(&**socket),
            _ => None,
        });
        if let Some(socket) = listening {
            settings.tcp_rmem[1] = socket.initial_rcvbuf;
        }
        settings
    }

    /// The stack, at this address if it is new.
    fn net(&mut self, addr: IpAddr) -> &mut Net {
        let Self { flags, settings, net, .. } = self;
        net.get_or_insert_with(|| Net::new(flags, settings, addr))
    }
}

impl Net {
    fn new(flags: &Flags, settings: &Settings, addr: IpAddr) -> Self {
        let addr = flags.local_addr.unwrap_or(addr);
        let config = EngineConfig {
            settings: settings.clone(),
            interface: Device::interface(addr, flags.mtu),
            secret: Secret::from_seed(random()),
            key: HashKey::new([random(), random()]),
            max_connections: MAX_CONNECTIONS,
        };
        let (mut engines, listeners) = engines(&config, 1);
        let engine = engines.remove(0);
        Self { engine, listeners, device: Device::default() }
    }
}

impl Timed for World {
    fn next_deadline(&self) -> Option<Instant> {
        self.net.as_ref()?.engine.next_deadline()
    }

    fn run(&mut self, now: Instant) {
        let Some(net) = &mut self.net else { return };
        net.device.set_now(now);
        loop {
            let mut busy = net.engine.turn(now, &mut net.device);
            for answer in net.device.take_answers() {
                net.engine.input(&mut [Some(answer)], now, &mut net.device);
                busy = true;
            }
            if !busy {
                break;
            }
        }
        self.sysctl.publish(net.engine.counters());
    }
}

/// A number that is another in each process.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
