//! The peers: other stacks over the same mbufs, as their users would drive them.
//!
//! Checksums are taken as verified, as everywhere in the table. fastcp began as smoltcp and kept its
//! interface, so one macro drives both through their ordinary poll function.

/// Declares the module `$module` with a contender over the crate of the same name.
macro_rules! peer {
    ($module:ident) => {
        #[doc = concat!("A receiver made of `", stringify!($module), "`.")]
        pub mod $module {
            use std::fmt;

            use prequeue::buf::PacketBuf;
            use $module::iface::{Config, Interface, SocketHandle, SocketSet};
            use $module::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium};
            use $module::socket::tcp;
            use $module::time::Instant;
            use $module::wire::{EthernetAddress, IpAddress, IpCidr};

            use crate::contender::{Application, Burst, Contender, READ_BUFFER};
            use crate::frames::{self, Client};

            /// Bytes of the socket's receive buffer: room for what a delayed segment holds up.
            const RECEIVE_BUFFER: usize = 256 * 1024;

            /// One interface with one socket.
            pub struct Receiver {
                interface: Interface,
                sockets: SocketSet<'static>,
                handle: SocketHandle,
                wire: Wire,
                out: Box<[u8]>,
                now_micros: i64,
            }

            impl Receiver {
                /// A receiver without a connection.
                pub fn new() -> Self {
                    let mut wire = Wire {
                        burst: Burst::new(),
                        first: None,
                        current: Vec::new(),
                        next: 0,
                        sent: Vec::new(),
                    };
                    let address = EthernetAddress(frames::OUR_MAC.0);
                    let mut interface =
                        Interface::new(Config::new(address.into()), &mut wire, Instant::ZERO);
                    let octets = frames::OUR_ADDR.octets();
                    let addr = IpAddress::v4(octets[0], octets[1], octets[2], octets[3]);
                    interface.update_ip_addrs(|addrs| {
                        addrs.push(IpCidr::new(addr, 24)).expect("room for one address");
                    });
                    let mut sockets = SocketSet::new(Vec::new());
                    let handle = sockets.add(socket());
                    let out = vec![0; READ_BUFFER].into();
                    Self { interface, sockets, handle, wire, out, now_micros: 0 }
                }

                fn exchange(&mut self, frame: Vec<u8>) -> Vec<u8> {
                    self.wire.first = Some(frame);
                    self.wire.sent.clear();
                    self.poll();
                    self.wire.sent.clone()
                }

                fn poll(&mut self) {
                    // Bursts of 32 frames a few microseconds apart: a clock that moves, unread.
                    self.now_micros += 10;
                    let now = Instant::from_micros(self.now_micros);
                    self.interface.poll(now, &mut self.wire, &mut self.sockets);
                }
            }

            impl Default for Receiver {
                fn default() -> Self {
                    Self::new()
                }
            }

            impl Contender for Receiver {
                fn name(&self) -> &'static str {
                    stringify!($module)
                }

                fn open(&mut self, client: &Client) -> u32 {
                    self.sockets.remove(self.handle);
                    self.handle = self.sockets.add(socket());
                    let socket = self.sockets.get_mut::<tcp::Socket>(self.handle);
                    socket.listen(frames::PORT).expect("a fresh socket listens");
                    self.exchange(client.who_has());
                    let syn_ack = self.exchange(client.syn());
                    let iss = client.iss_of(&syn_ack).expect("a SYN-ACK");
                    self.exchange(client.ack(iss));
                    iss
                }

                fn burst(&mut self, burst: &mut Burst, application: &mut dyn Application) -> usize {
                    self.wire.burst = std::mem::take(burst);
                    self.wire.next = 0;
                    self.wire.sent.clear();
                    self.poll();
                    let socket = self.sockets.get_mut::<tcp::Socket>(self.handle);
                    let mut bytes = 0;
                    while socket.can_recv() {
                        let n = socket.recv_slice(&mut self.out).unwrap_or(0);
                        application.read(&self.out[..n]);
                        bytes += n;
                    }
                    // What reading has changed in the window goes out with the next poll.
                    self.wire.burst.clear();
                    bytes
                }
            }

            impl fmt::Debug for Receiver {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.name())
                }
            }

            fn socket() -> tcp::Socket<'static> {
                let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
                tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(1024))
            }

            /// The device: hands out the frames of one burst, keeps the last frame sent.
            struct Wire {
                burst: Burst,
                /// A frame to come before the burst.
                first: Option<Vec<u8>>,
                current: Vec<u8>,
                next: usize,
                sent: Vec<u8>,
            }

            impl Device for Wire {
                type RxToken<'a> = RxToken<'a>;
                type TxToken<'a> = TxToken<'a>;

                fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
                    if let Some(frame) = self.first.take() {
                        self.current = frame;
                        return Some((RxToken(&self.current), TxToken(&mut self.sent)));
                    }
                    let frame = self.burst.as_slice().get(self.next)?.data();
                    self.next += 1;
                    Some((RxToken(frame), TxToken(&mut self.sent)))
                }

                fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
                    Some(TxToken(&mut self.sent))
                }

                fn capabilities(&self) -> DeviceCapabilities {
                    let mut capabilities = DeviceCapabilities::default();
                    capabilities.medium = Medium::Ethernet;
                    capabilities.max_transmission_unit = 1514;
                    capabilities.checksum = ChecksumCapabilities::ignored();
                    capabilities
                }
            }

            struct RxToken<'a>(&'a [u8]);

            impl $module::phy::RxToken for RxToken<'_> {
                fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
                    f(self.0)
                }
            }

            struct TxToken<'a>(&'a mut Vec<u8>);

            impl $module::phy::TxToken for TxToken<'_> {
                fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
                    self.0.clear();
                    self.0.resize(len, 0);
                    f(self.0)
                }
            }
        }
    };
}

peer!(fastcp);
peer!(smoltcp);
