//! What can be wrong with how a stack is set up, or a port listened on: each in a sentence that says what
//! to do.
//!
//! Made before a poll thread starts, or when a listener is asked for; never on the packet path.

use std::net::IpAddr;

use crate::dpdk::{EalError, FragmentsError, PoolError, PortError};

/// Why a stack did not start.
///
/// Each says in a sentence what is wrong and what to do, for people to read.
///
/// ```no_run
/// use prequeue::{Stack, StartError};
///
/// let error = Stack::builder().eal_args(["-l", "0", "--no-pci"]).start().unwrap_err();
/// assert_eq!(error, StartError::NoAddress);
/// eprintln!("{error}");
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No EAL arguments.
    #[error(
        "no EAL arguments: say at least which CPUs and which device, as -l 0 --vdev=net_tap0,iface=tap0, or -l 0 -a 0000:3b:00.0"
    )]
    NoEalArguments,
    /// The EAL, or a device of its arguments.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No address.
    #[error(
        "no address: give the stack one with the length of its prefix, as 10.99.0.2/24 or fd00:99::2/64"
    )]
    NoAddress,
    /// The address is none, or none that a host can have.
    #[error(
        "{0:?} is no address for a host: write it with the length of its prefix, as 10.99.0.2/24 or fd00:99::2/64; not a broadcast, multicast or loopback address"
    )]
    BadAddress(String),
    /// There are more addresses than an interface can have, or one twice.
    #[error("{0:?} is one address too many: there may be eight, each once")]
    TooManyAddresses(String),
    /// The gateway is no address, not on the link, or a second one.
    #[error(
        "{gateway:?} cannot be the gateway of {address}: it must be another host on that link, one for IPv4 and one for IPv6"
    )]
    BadGateway {
        /// The gateway asked for.
        gateway: String,
        /// The stack's addresses.
        address: String,
    },
    /// The Ethernet address is malformed, or a group's.
    #[error(
        "{0:?} is no Ethernet address for a host: write six pairs of hex digits, 02:00:00:00:00:01; the first must be even"
    )]
    BadMac(String),
    /// Packet buffers would not take the headers of a frame.
    #[error("packet buffers of {0} bytes are too small: headers want 256, and 32768 are the most")]
    BadBufferRoom(u16),
    /// The MTU is too small for TCP over IPv4.
    #[error("an MTU of {0} is too small: IPv4 hosts take datagrams of 576 bytes")]
    BadMtu(u16),
    /// There is no such VLAN.
    #[error("there is no VLAN {0}: they are numbered from 1 to 4094")]
    BadVlan(u16),
    /// The MTU is too small for IPv6.
    #[error("an MTU of {0} is too small for IPv6: every link of it takes datagrams of 1280 bytes")]
    BadMtuOfIpv6(u16),
    /// The device would keep nearly all packet buffers, and no data could be received.
    #[error(
        "{mbufs} packet buffers per lcore are too few: the device and the poll loop keep {reserve} of them for themselves, so ask for {least} at least"
    )]
    TooFewMbufs {
        /// Those asked for.
        mbufs: u32,
        /// Those that sockets never hold.
        reserve: u32,
        /// The least with which data can be received.
        least: u32,
    },
    /// There are several ports, and none was chosen.
    #[error("there are several ports ({names}): choose one by its name or number")]
    SeveralPorts {
        /// Their names.
        names: String,
    },
    /// The port chosen is not there.
    #[error("there is no port {wanted}: there is {names}")]
    NoSuchPort {
        /// The one asked for.
        wanted: String,
        /// Those that there are.
        names: String,
    },
    /// Queues and lcores do not fit together.
    #[error(
        "{queues} queues and {lcores} lcores do not fit together: each queue has an lcore of its own; name as many CPUs with -l"
    )]
    QueuesAndLcores {
        /// Queues asked for.
        queues: usize,
        /// Lcores of `-l`.
        lcores: usize,
    },
    /// A packet pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The table of fragments.
    #[error(transparent)]
    Fragments(#[from] FragmentsError),
    /// A poll thread.
    #[error("a poll thread cannot start: {0}")]
    Thread(String),
}

/// Why a port cannot be listened on.
///
/// ```no_run
/// use prequeue::{ListenError, Stack, TcpListener};
///
/// fn first_free(stack: &Stack) -> Result<TcpListener, ListenError> {
///     match stack.listen(80) {
///         Err(ListenError::PortInUse(_)) => stack.listen(8080),
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody listens there.
    #[error(
        "port {0} is in use: another listener of this stack has it; drop that or take another port"
    )]
    PortInUse(u16),
    /// Port 0 is no port.
    #[error("port 0 cannot be listened on: this stack does not choose ports, name one")]
    PortZero,
    /// The address is not the stack's.
    #[error(
        "{0} is none of the stack's addresses: listen at one of them, or at 0.0.0.0 or :: for all"
    )]
    NotOurs(IpAddr),
    /// The lcores are gone.
    #[error("the stack has stopped")]
    Stopped,
}
