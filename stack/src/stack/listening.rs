//! Listening on a port of a stack: what is asked for, and what stands in its way.
//!
//! Called by application threads of [`Stack`](super::Stack) and by the one thread of a
//! [`LocalStack`](crate::LocalStack). The lcores hear of it at their next poll.

use crate::dpdk::Mbuf;
use crate::lcore::{self, Bind, Interface, Listeners};
use crate::socket::{self, Mode};
use crate::tcp::{Settings, listen};

use super::ListenError;

/// How a port is listened on.
///
/// ```
/// use prequeue::ListenOptions;
///
/// use prequeue::socket::SocketOptions;
///
/// let low_latency = SocketOptions { low_latency: Some(true), ..SocketOptions::default() };
/// let options = ListenOptions { sockets: low_latency, ..ListenOptions::default() };
/// assert_eq!(options.backlog, 128);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted, less one; at most the setting `somaxconn`.
    /// Negative means as many as that.
    pub backlog: i32,
    /// Largest MSS to announce, in bytes (TCP_MAXSEG); what the interface allows if `None`.
    pub mss: Option<u16>,
    /// The options that its connections begin with.
    pub sockets: socket::SocketOptions,
    /// Whether a listener at the unspecified address of IPv6 takes connections of IPv6 alone
    /// (IPV6_V6ONLY), or of IPv4 too.
    pub only_v6: bool,
}

impl Default for ListenOptions {
    /// 128 connections, as in std, and both families.
    fn default() -> Self {
        Self { backlog: 128, mss: None, sockets: socket::SocketOptions::default(), only_v6: false }
    }
}

/// The accept queue of a new listener, or what stands in its way.
pub(crate) fn bind_to<M: Mode<Mbuf>>(
    listeners: &Listeners<Mbuf, M>,
    interface: &Interface,
    settings: &Settings,
    (port, bind): (u16, Bind),
    options: ListenOptions,
) -> Result<M::Accept, ListenError> {
    let ListenOptions { backlog, mss, sockets, only_v6: _ } = options;
    if port == 0 {
        return Err(ListenError::PortZero);
    }
    if let Some(addr) = interface.foreign(&bind) {
        return Err(ListenError::NotOurs(addr));
    }
    let backlog = listen::backlog(settings, backlog);
    let options = lcore::ListenOptions { backlog, mss, sockets, bind };
    listeners.listen_with(port, options).ok_or(ListenError::PortInUse(port))
}
